"""Variations of a script: its calls of TensorFlow and Keras, changed once the module that they go to was imported.

A call that an option has changed is counted, so that one that changes nothing is not taken for one that gives nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Final

from graphlens.ir.edits import Edit, ScriptSetting, is_of_input
from graphlens.tf import private
from graphlens.tf.watch import inputs
from graphlens.tf.watch.hooks import Finder

_TRAINER: Final = "keras.src.trainers.trainer"
_RECURRENT: Final = {
    "keras.src.layers.rnn.lstm": "LSTM",
    "keras.src.layers.rnn.gru": "GRU",
    "keras.src.layers.rnn.simple_rnn": "SimpleRNN",
}
INPUT: Final = "input pipeline"  # as what edits of one are counted

_KERAS: Final = "keras"
_POLICIES: Final = "keras.src.dtype_policies.dtype_policy"
_ADAM: Final = "keras.src.optimizers.adam"
_FUNCTIONS: Final = "tensorflow.python.eager.polymorphic_function.polymorphic_function"
_LOOPS: Final = "tensorflow.python.data.ops.dataset_autograph"

Note = Callable[[], None]  # that a call was changed
Wrapper = Callable[[ModuleType], None]


class UnknownVariation(Exception):
    """No script can be varied so; the message says why."""


def install(edits: Iterable[Edit]) -> dict[str, int]:
    """Vary the script that runs next; return how often each option changed a call, which is counted from now on.

    Raises
    ------
    UnknownVariation
        If an edit is none of a script.
    """
    applied: dict[str, int] = {}
    wrappers: dict[str, list[Wrapper]] = {}
    edits = list(edits)
    of_input = [edit for edit in edits if is_of_input(edit)]
    if of_input:
        applied[INPUT] = 0
        for module, wrapper in inputs.changed(of_input, _noting(applied, INPUT)).items():
            wrappers.setdefault(module, []).append(wrapper)
    for edit in edits:
        if is_of_input(edit):
            continue
        if not isinstance(edit, ScriptSetting):
            raise UnknownVariation(f"'{edit.kind}' changes a graph, and a script has its own")
        applied[edit.option] = 0
        for module, wrapper in _VARIATIONS[edit.option](edit, _noting(applied, edit.option)).items():
            wrappers.setdefault(module, []).append(wrapper)
    Finder({name: functools.partial(_all, parts) for name, parts in wrappers.items()}).install()
    return applied


def _noting(applied: dict[str, int], option: str) -> Note:
    def note() -> None:
        applied[option] += 1

    return note


def _all(wrappers: Iterable[Wrapper], module: ModuleType) -> None:
    for wrap in wrappers:
        wrap(module)


def _around(owner: Any, name: str, made: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    before = getattr(owner, name)
    wrapper = functools.wraps(before)(made(before))
    del wrapper.__wrapped__  # Keras binds arguments by the one, and names them by the other
    setattr(owner, name, wrapper)


def _with_keywords(note: Note, **changes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what has a method called with other keywords."""

    def made(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(self: Any, *args: Any, **kwargs: Any) -> Any:
            note()
            return method(self, *args, **{**kwargs, **changes})

        return called

    return made


# -- options --------------------------------------------------------------------------------------------------------


def _compiled(edit: ScriptSetting, note: Note) -> Mapping[str, Wrapper]:
    if not edit.function:
        changes = _with_keywords(note, jit_compile=True)
        return {_TRAINER: lambda module: _around(module.Trainer, "compile", changes)}

    def made(initialize: Callable[..., Any]) -> Callable[..., Any]:
        def initialized(self: Any, *args: Any, **kwargs: Any) -> None:
            initialize(self, *args, **kwargs)
            if private.python_name(self) == edit.function:
                note()
                self._jit_compile = True

        return initialized

    return {_FUNCTIONS: lambda module: _around(module.Function, "__init__", made)}


def _several_steps(edit: ScriptSetting, note: Note) -> Mapping[str, Wrapper]:
    changes = _with_keywords(note, steps_per_execution=int(edit.value))
    return {_TRAINER: lambda module: _around(module.Trainer, "compile", changes)}


def _unrolled(_: ScriptSetting, note: Note) -> Mapping[str, Wrapper]:
    changes = _with_keywords(note, unroll=True)

    def wrapper(kind: str) -> Wrapper:
        return lambda module: _around(getattr(module, kind), "__init__", changes)

    return {name: wrapper(kind) for name, kind in _RECURRENT.items()}


def _mixed(edit: ScriptSetting, note: Note) -> Mapping[str, Wrapper]:
    """Have Keras begin with a policy, and stay with it where the script sets another one."""

    def wrap_policies(module: Any) -> None:
        set_policy = module.set_dtype_policy
        module.set_dtype_policy = lambda _: set_policy(edit.value)

    def wrap_keras(module: Any) -> None:
        note()
        module.config.set_dtype_policy(edit.value)

    return {_POLICIES: wrap_policies, _KERAS: wrap_keras}


def _iterated(_: ScriptSetting, note: Note) -> Mapping[str, Wrapper]:
    """Have loops over datasets in functions go over ``iter(dataset)``, as if it were written there."""

    def wrap(module: Any) -> None:
        def over_dataset(dataset: Any, *args: Any) -> Any:
            note()
            return module.control_flow._tf_iterator_for_stmt(iter(dataset), *args)

        module._tf_ag_dataset_for_stmt = over_dataset  # before it is registered, which is done on the module's behalf

    return {_LOOPS: wrap}


def _scattering(_: ScriptSetting, note: Note) -> Mapping[str, Wrapper]:
    """Have Adam update the rows that gradients are about, and their moments; the others stay as they are."""

    def made(update: Callable[..., Any]) -> Callable[..., Any]:
        def updated(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
            if getattr(gradient, "indices", None) is None or self.amsgrad:
                update(self, gradient, variable, learning_rate)
                return
            note()
            from graphlens.tf.watch import lazy_adam

            lazy_adam.update(self, gradient, variable, learning_rate)

        return updated

    return {_ADAM: lambda module: _around(module.Adam, "update_step", made)}


_VARIATIONS: Final[Mapping[str, Callable[[ScriptSetting, Note], Mapping[str, Wrapper]]]] = {
    "jit_compile": _compiled,
    "steps_per_execution": _several_steps,
    "unroll": _unrolled,
    "mixed_precision": _mixed,
    "iterate": _iterated,
    "served_input": lambda edit, note: inputs.served(note, endless=edit.value == "endless"),
    "sparse_optimizer": _scattering,
}
