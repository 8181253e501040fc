"""The requests that a SavedModel brings for warming up a server: ``assets.extra/tf_serving_warmup_requests``.

The file is a TFRecord of ``tensorflow.serving.PredictionLog``, by which a person has said what real requests look like.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.loaders.files import parse_message, read_bytes
from graphlens.loaders.schema import prediction_log
from graphlens.loaders.signatures import DEFAULT

FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")
# TensorFlow Serving refuses a file with more.
MOST_REQUESTS: Final = 1000

_LENGTH: Final = struct.Struct("<Q")
_CHECKSUM_BYTES: Final = 4  # after the length and after the content: damage is told by what is there, not by these


@dataclass(frozen=True, slots=True)
class WarmUpRequest:
    """One request.

    Attributes
    ----------
    number
        Its place in the file, from 1.
    signature
        The signature that it is for.
    tensors
        Input -> a serialized ``TensorProto``.
    examples
        Serialized ``tf.train.Example``, for the one input of a signature that parses them.
    """

    number: int
    signature: str
    tensors: Mapping[str, bytes] = field(default_factory=dict)
    examples: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The requests of a model that can be read, and notes on what could not; ``count`` is how many the file holds."""

    requests: tuple[WarmUpRequest, ...] = ()
    count: int = 0
    notes: tuple[str, ...] = ()


def warm_up_of(folder: Path) -> WarmUp:
    """Return the requests that the SavedModel in ``folder`` brings; a model without such a file has none."""
    file = folder / FILE
    if not file.is_file():
        return WarmUp()
    try:
        data = read_bytes(file)
    except TargetError as error:
        return WarmUp(notes=(f"The requests for warming up were not read: {error}.",))
    requests: list[WarmUpRequest] = []
    notes: list[str] = []
    count = 0
    for number, record in enumerate(_records(data), start=1):
        if record is None:
            notes.append(f"'{FILE}' is damaged from request {number} on: the requests before it were read.")
            break
        count = number
        if number > MOST_REQUESTS:
            break
        try:
            requests.extend(_requests(number, parse_message(prediction_log(), record, file, "a request")))
        except TargetError:
            notes.append(f"Request {number} of '{FILE}' is damaged and was left out.")
    return WarmUp(tuple(requests), count, tuple(notes))


def _records(data: bytes) -> Iterator[bytes | None]:
    """Yield the contents of a TFRecord file; ``None`` where one is cut off, after which nothing can be read."""
    place = 0
    while place < len(data):
        begin = place + _LENGTH.size + _CHECKSUM_BYTES
        if begin > len(data):
            yield None
            return
        end = begin + _LENGTH.unpack_from(data, place)[0]
        if end + _CHECKSUM_BYTES > len(data):
            yield None
            return
        yield data[begin:end]
        place = end + _CHECKSUM_BYTES


def _requests(number: int, log: Any) -> Iterator[WarmUpRequest]:
    """Yield what one record asks for: several signatures may be asked for the same examples."""
    for request in (log.predict_log.request, *log.predict_streamed_log.request):
        if request.inputs:
            yield WarmUpRequest(number, _signature(request), _tensors(request.inputs))
    if log.session_run_log.request.feed:
        request = log.session_run_log.request
        yield WarmUpRequest(number, _signature(request), _tensors(request.feed))
    several = log.multi_inference_log.request
    asked = [
        *((request, request.input) for request in (log.classify_log.request, log.regress_log.request)),
        *((task, several.input) for task in several.tasks),
    ]
    for request, given in asked:
        examples = _examples(given)
        if examples:
            yield WarmUpRequest(number, _signature(request), examples=examples)


def _signature(request: Any) -> str:
    return request.model_spec.signature_name or DEFAULT


def _tensors(named: Any) -> dict[str, bytes]:
    return {one.name: one.tensor for one in named}


def _examples(given: Any) -> tuple[bytes, ...]:
    """Return the examples; what they have in common is merged into each, which is what appending its bytes does."""
    alone = tuple(given.example_list.examples)
    shared = given.example_list_with_context
    return alone or tuple(example + shared.context for example in shared.examples)
