"""``order-names``: name the parts of a hard swish so that Grappler recognizes it.

Grappler sorts the inputs of a product by name, and takes ``x * hard_sigmoid(x)`` into the kernel before it only where
``x`` comes first (TensorFlow 2.21).  Keras names activations ``activation_7`` and layers ``conv_2``, which is the other
order.
"""

from __future__ import annotations

from graphlens.errors import RewriteError
from graphlens.ir.edits import OrderNames
from graphlens.ir.ops import SCALINGS, SUMS
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named

_LONGEST_WAY = 3  # ops of a hard sigmoid: sum, Relu6, division
_ON_THE_WAY = SUMS | SCALINGS | {"Relu6"}


@rewrite
def order_names(draft: Draft, edit: OrderNames) -> None:
    """Rename the ops named, or every hard sigmoid whose name sorts before that of its argument."""
    wanted = named(edit)
    renamed = order_hard_swishes(draft, wanted)
    if renamed < max(1, len(wanted)):
        raise RewriteError("no hard swish has its parts in an order in which Grappler does not recognize it")


def order_hard_swishes(draft: Draft, only: list[str] | None = None) -> int:
    """Rename what multiplies the argument of each hard swish; returns how many there were to rename."""
    products = [name for name in draft.news("order_hard_swishes", _LONGEST_WAY + 1) if draft.node(name).op == "Mul"]
    pairs = (_argument_and_factor(draft, name) for name in products)
    wrong = [pair for pair in pairs if pair is not None and pair[1] < pair[0] and (not only or pair[1] in only)]
    for argument, factor in wrong:
        draft.rename(factor, draft.unused(f"{argument}_hard_sigmoid"))
    return len(wrong)


def _argument_and_factor(draft: Draft, product: str) -> tuple[str, str] | None:
    """Return ``x`` and what is computed from it, where the product of both is a hard swish, or most of one."""
    inputs = [nodes.source(ref) for ref in nodes.data_inputs(draft.node(product))]
    for argument, factor in (inputs, inputs[::-1]):
        if argument != factor and not draft.is_fetched(factor) and _is_hard_sigmoid(draft, argument, factor):
            return argument, factor
    return None


def _is_hard_sigmoid(draft: Draft, argument: str, factor: str) -> bool:
    """Whether ``factor`` is a Relu6 of the argument plus a number, perhaps scaled."""
    types, name = [], factor
    for _ in range(_LONGEST_WAY):
        node = draft.node(name)
        if node.op not in _ON_THE_WAY:
            return False
        types.append(node.op)
        computed = [ref for ref in nodes.data_inputs(node) if draft.producer(ref).op != "Const"]
        if len(computed) != 1:
            return False
        name = nodes.source(computed[0])
        if name == argument:
            return "Relu6" in types and types[-1] in SUMS
    return False
