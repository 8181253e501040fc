"""Feed a SavedModel what its own requests for warming up hold, rather than what could be made up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf

from graphlens.errors import UsageError, first_line
from graphlens.loaders.files import MESSAGE_LIMIT_BYTES
from graphlens.loaders.warm_up import FILE, WarmUp, WarmUpRequest, warm_up_of
from graphlens.tf.open.inputs import Examples, InputSpec
from graphlens.tf.open.opened import Opened

_FLAG: Final = "--warm-up-request"
_NONE: Final = 0  # the number that asks for no request


class _DoesNotFitError(Exception):
    """A request does not fit the signature; the message says where."""


def with_request(opened: Opened, folder: Path, number: int | None) -> Opened:
    """Return the opened signature with the values of a request: that with ``number``, or the first one that fits.

    Raises
    ------
    UsageError
        When there is no request with that number, or it does not fit.
    """
    if number == _NONE:
        return opened
    warm_up = warm_up_of(folder)
    if number is not None:
        return _fed(opened, warm_up, _chosen(opened, warm_up, number), asked=True)
    misfits: list[str] = []
    for request in _of_signature(opened, warm_up):
        try:
            return _fed(opened, warm_up, request)
        except _DoesNotFitError as error:
            misfits.append(f"Request {request.number} of '{FILE}' was not fed: {error}.")
    return replace(opened, notes=(*opened.notes, *warm_up.notes, *misfits[:1]))


def _of_signature(opened: Opened, warm_up: WarmUp) -> list[WarmUpRequest]:
    return [request for request in warm_up.requests if request.signature == opened.signature]


def _chosen(opened: Opened, warm_up: WarmUp, number: int) -> WarmUpRequest:
    if not warm_up.count:
        raise UsageError(f"{_FLAG} {number}: the model brings no requests ({FILE})")
    if number > warm_up.count:
        raise UsageError(f"{_FLAG} {number}: '{FILE}' holds {warm_up.count}")
    signatures = [request.signature for request in warm_up.requests if request.number == number]
    if not signatures:
        raise UsageError(f"{_FLAG} {number}: nothing can be read of this request")
    chosen = next((one for one in _of_signature(opened, warm_up) if one.number == number), None)
    if chosen is None:
        raise UsageError(f"{_FLAG} {number} is for another signature: --signature {signatures[0]}")
    return chosen


def _fed(opened: Opened, warm_up: WarmUp, request: WarmUpRequest, *, asked: bool = False) -> Opened:
    try:
        values = _examples(opened.specs, request) if request.examples else _tensors(opened.specs, request.tensors)
    except _DoesNotFitError as error:
        if asked:
            raise UsageError(f"{_FLAG} {request.number}: {error}") from error
        raise
    source = f"warm-up request {request.number} of {warm_up.count}"
    others = f"; {_FLAG} N takes another one" if warm_up.count > 1 else ""
    said = f"The model's own {source} was fed{others}, and {_FLAG} {_NONE} none of them."
    examples = Examples(values, source, repeats=True)
    return replace(opened, examples=examples, notes=(*opened.notes, *warm_up.notes, said))


# -- values --------------------------------------------------------------------------------------------------------


def _examples(specs: Sequence[InputSpec], request: WarmUpRequest) -> dict[str, Any]:
    if [spec.dtype for spec in specs] != ["string"]:
        raise _DoesNotFitError("it holds examples for a parser, and the signature has other inputs")
    values = np.array(request.examples, object)
    _check(specs[0], "string", values.shape)
    return {specs[0].name: values}


def _tensors(specs: Sequence[InputSpec], tensors: Mapping[str, bytes]) -> dict[str, Any]:
    by_name = {name: spec for spec in specs for name in (spec.placeholder, f"{spec.placeholder}:0", spec.name)}
    unknown = [name for name in tensors if name not in by_name]
    if unknown:
        raise _DoesNotFitError(f"it names an input '{unknown[0]}', which the signature does not have")
    return {by_name[name].name: _value(by_name[name], tensor) for name, tensor in tensors.items()}


def _value(spec: InputSpec, serialized: bytes) -> Any:
    try:
        proto = tf.compat.v1.make_tensor_proto(0).FromString(serialized)
        sizes = tuple(dim.size for dim in proto.tensor_shape.dim)
        _check(spec, tf.as_dtype(proto.dtype).name, sizes)
        return tf.make_ndarray(proto)
    except _DoesNotFitError:
        raise
    except Exception as error:  # the bytes of a file: protobuf, NumPy and TensorFlow raise what they like
        raise _DoesNotFitError(f"its input '{spec.name}' is damaged ({first_line(error)})") from error


def _check(spec: InputSpec, dtype: str, shape: Sequence[int]) -> None:
    """Refuse what the signature would, and what would fill the memory: a few bytes may stand for any number."""
    wanted = spec.shape
    fits = wanted is None or (
        len(wanted) == len(shape) and all(want in (None, size) for want, size in zip(wanted, shape, strict=True))
    )
    if dtype != spec.dtype or not fits:
        given = ",".join(map(str, shape))
        raise _DoesNotFitError(f"its input '{spec.name}' is {dtype}[{given}], which the signature does not take")
    if math.prod(shape) * 8 > MESSAGE_LIMIT_BYTES:
        raise _DoesNotFitError(f"its input '{spec.name}' is too large")
