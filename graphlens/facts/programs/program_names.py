"""What a program is called, and by its name and its ops, what it is for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from graphlens.ir.roles import Role

_FUNCTION_NAME = re.compile(r"^__(?:inference|forward|backward)_(?P<base>.*)_\d+$")
_STAGE = re.compile(r"^(Reduce)?Iterator\b")
_CLUSTER = re.compile(r"^cluster_\d|^XlaCluster|^jit_")
_INITIALIZATION = re.compile(r"initializ|restore_variables|_creator$|_destroyer$", re.IGNORECASE)
# How Keras 3 calls what it runs: train and test are both `multi_step_on_iterator`, or `one_step_on_data` for a single
# batch, and only the ops tell them apart.
_EVAL = re.compile(r"test|eval|valid|multi_step_on_iterator|one_step_on_data", re.IGNORECASE)
_PREDICT = re.compile(
    r"predict|one_step_on_data_distributed|multi_step_on_data|signature_wrapper|restored_function_body"
)
_TRAINS = re.compile(r"gradient_tape/|(^|/)gradients/|:(\w*Grad|\w*Backprop\w*|(Resource)?(Sparse)?Apply[A-Z]\w*)$")


def base_name(name: str) -> str:
    """Return what a function is called in Python: TensorFlow adds a prefix and a number.

    >>> base_name("__inference_train_step_946"), base_name("Session.run")
    ('train_step', 'Session.run')
    """
    match = _FUNCTION_NAME.match(name)
    return match["base"] if match else name


def short_name(name: str) -> str:
    """Return the name of a function with its number, without the prefix that all functions have.

    >>> short_name("__inference_train_step_946"), short_name("__backward_f_12")
    ('train_step_946', '__backward_f_12')
    """
    return name.removeprefix("__inference_")


def role_of(name: str, ops: Iterable[str], compiled: bool) -> Role:
    """Return what a program is for.

    Parameters
    ----------
    ops
        What ran in it, as ``node:type``.
    compiled
        Whether XLA compiled some of it: then not all of its ops are seen.
    """
    base = base_name(name)
    if _STAGE.match(name):
        return "dataset"
    if _INITIALIZATION.search(base):
        return "initialization"
    if any(map(_TRAINS.search, ops)):
        return "step"
    by_name: Sequence[tuple[re.Pattern[str], Role]] = ((_CLUSTER, "cluster"), (_PREDICT, "predict"))
    if not compiled:  # of what XLA compiled no op is seen, and so not whether it trains
        by_name = (*by_name, (_EVAL, "eval"))
    return next((role for pattern, role in by_name if pattern.search(base)), "step")
