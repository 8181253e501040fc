"""What changed from one trace of a function to the next: the types of its arguments, compared."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final

from graphlens.ir.script import ANOTHER_OBJECT, DATA_TYPE, NOT_DIVIDED, PYTHON_VALUE, SHAPE

_LONGEST: Final = 60  # of a value that is shown
_ELEMENTS: Final = "'s elements"
# Element types that an iterator brings along: they are the dataset's, which no relaxation of the function changes.
_OF_DATASETS: Final = ("IteratorSpec", "DatasetSpec", "OwnedIteratorSpec", "DistributedIteratorSpec")


def changes(before: Any, after: Any) -> tuple[str, ...]:
    """Return one line for each argument whose type differs between two function types."""
    old, new = _arguments(before), _arguments(after)
    found: list[str] = []
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            found.append(f"{name}: is no longer given")
        elif name not in old:
            found.append(f"{name}: is given now, {_said(new[name])}")
        else:
            found.extend(_differences(name, old[name], new[name]))
    return tuple(found)


def is_relaxed(before: Any, after: Any) -> bool:
    """Whether a trace takes all that the one before took and more, by its own doing and not its dataset's."""
    old, new = _arguments(before), _arguments(after)
    differing = [(old[name], new[name]) for name in new if name in old and old[name] != new[name]]
    return (
        old.keys() == new.keys()
        and bool(differing)
        and all(_kind(spec) not in _OF_DATASETS and spec.is_subtype_of(general) for spec, general in differing)
    )


def tensors_of(function_type: Any) -> Hashable:
    """Return the types and shapes of the tensors among the arguments, whatever Python values are given beside them."""
    arguments = _arguments(function_type)
    return tuple((name, leaf) for name, kind in arguments.items() for leaf in _tensors(kind))


def _arguments(function_type: Any) -> Mapping[str, Any]:
    """Return argument -> type; extra positional ones are called after the parameter that takes them."""
    return {name: parameter.type_constraint for name, parameter in function_type.parameters.items()}


def _differences(where: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    parts = _parts(old), _parts(new)
    if _kind(old) == _kind(new) and parts[0] and parts[0].keys() == parts[1].keys():
        for key in parts[0]:
            yield from _differences(f"{where}{key}", parts[0][key], parts[1][key])
    else:
        yield f"{where}: {_change(where, old, new)}"


def _change(where: str, old: Any, new: Any) -> str:
    if _kind(old) == _kind(new) == "Literal":
        return f"{PYTHON_VALUE} {_said_value(old.value)} became {_said_value(new.value)}"
    if {_kind(old), _kind(new)} <= {"Weakref", "Reference"}:
        return f"{ANOTHER_OBJECT} ({_class_of(new)})"
    if _is_tensor(old) and _is_tensor(new) and _kind(old) == _kind(new):
        return _change_of_tensor(where, old, new)
    if _parts(old) and _kind(old) == _kind(new):
        return f"the structure changed from {_structure(old)} to {_structure(new)}"
    return f"{_said(old)} became {_said(new)}"


def _change_of_tensor(where: str, old: Any, new: Any) -> str:
    if old.dtype != new.dtype:
        return f"{DATA_TYPE} {old.dtype.name} became {new.dtype.name}"
    if old.shape != new.shape:
        return f"{SHAPE} {_shape(old)} became {_shape(new)}{_why(where, old, new)}"
    return "the variable is used in another place" if _kind(old) == "VariableSpec" else "another kind of tensor"


def _why(where: str, old: Any, new: Any) -> str:
    """Say why the batch of a dataset is fixed no longer: it is only while the last batch is as large as all others."""
    if _ELEMENTS not in where or not old.shape.rank or not new.shape.rank:
        return ""
    before, after = old.shape.as_list()[0], new.shape.as_list()[0]
    if before is not None and after is None:
        return f": batch {before} became None {NOT_DIVIDED}"
    if before is None and after is not None:
        return f": batch None became {after} because it divides the number of samples now"
    return ""


# -- the types of TensorFlow, by name: they are not public -----------------------------------------------------------


def _kind(spec: Any) -> str:
    return type(spec).__name__


def _is_tensor(spec: Any) -> bool:
    return hasattr(spec, "shape") and hasattr(spec, "dtype")


def _parts(spec: Any) -> Mapping[str, Any]:
    """Return what a structure holds, by how Python reads it (``[0]``, ``['x']``, ``.x``)."""
    kind = _kind(spec)
    if kind in ("List", "Tuple"):
        return {f"[{number}]": part for number, part in enumerate(_components(spec))}
    if kind == "Dict":
        return {f"[{key!r}]": part for key, part in spec.mapping.items()}
    if kind in ("NamedTuple", "Attrs"):
        return {f".{name}": part for name, part in _attributes(spec)}
    if kind == "PerReplicaSpec":
        return {f"'s replica {number}": part for number, part in enumerate(getattr(spec, "_value_specs", ()))}
    if kind in _OF_DATASETS:
        return _elements(getattr(spec, "element_spec", getattr(spec, "_element_spec", None)), _ELEMENTS)
    return {}


def _components(spec: Any) -> Sequence[Any]:
    """Return the parts of a list or a tuple; TensorFlow keeps those of a list in a tuple of its own."""
    return tuple(getattr(spec, "components_tuple", spec).components)


def _attributes(spec: Any) -> Sequence[tuple[str, Any]]:
    if _kind(spec) == "NamedTuple":
        return list(zip(spec.attribute_names, spec.attributes.components, strict=True))
    return [(f"[{number}]", part) for number, part in enumerate(getattr(spec, "named_attributes", ()))]


def _elements(element: Any, where: str) -> Mapping[str, Any]:
    if isinstance(element, list | tuple):
        parts = enumerate(element)
        return {path: part for key, one in parts for path, part in _elements(one, f"{where}[{key}]").items()}
    if isinstance(element, dict):
        return {
            path: part for key, one in element.items() for path, part in _elements(one, f"{where}[{key!r}]").items()
        }
    return {} if element is None else {where: element}


def _tensors(spec: Any) -> Iterator[Hashable]:
    if _is_tensor(spec):
        yield spec.dtype.name, _shape(spec)
    for part in _parts(spec).values():
        yield from _tensors(part)


# -- in words --------------------------------------------------------------------------------------------------------


def _said(spec: Any) -> str:
    kind = _kind(spec)
    if kind == "Literal":
        return f"{PYTHON_VALUE} {_said_value(spec.value)}"
    if kind in ("Weakref", "Reference"):
        return f"an object ({_class_of(spec)})"
    if kind == "VariableSpec":
        return f"a tf.Variable {spec.dtype.name}{_shape(spec)}"
    if _is_tensor(spec):
        return f"a tensor {spec.dtype.name}{_shape(spec)}"
    return f"a {_structure(spec)}" if _parts(spec) or kind in ("List", "Tuple", "Dict") else f"a {kind}"


def _structure(spec: Any) -> str:
    kind = _kind(spec)
    if kind in ("List", "Tuple"):
        return f"{kind.lower()} of {len(_components(spec))}"
    if kind == "Dict":
        return f"dict of {', '.join(map(repr, list(spec.mapping)[:3]))}{', …' if len(spec.mapping) > 3 else ''}"
    return str(getattr(spec, "type_name", kind))


def _shape(spec: Any) -> str:
    if spec.shape.rank is None:
        return "of unknown rank"
    return f"({', '.join(map(str, spec.shape.as_list()))}{',' if spec.shape.rank == 1 else ''})"


def _said_value(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _class_of(spec: Any) -> str:
    held = getattr(spec, "_ref", getattr(spec, "base", None))
    held = held() if callable(held) and _kind(spec) == "Weakref" else held
    return type(held).__name__ if held is not None else "which is gone"
