"""No op that is written wrongly keeps the others from being judged: every op type of TensorFlow is written so, with
too few inputs and with attributes of a kind that it does not take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.graph_pb2 import GraphDef

import graphlens
from graphlens.ir.document import from_json, to_json
from graphlens.ir.optable import table

WRONG = {
    "none": None,
    "text": AttrValue(s=b"\xff"),
    "number": AttrValue(i=-(2**63)),
    "float": AttrValue(f=float("inf")),
    "shape": AttrValue(shape={}),
    "empty list": AttrValue(list={}),
    "numbers": AttrValue(list={"i": [-1, 0, 7]}),
    "texts": AttrValue(list={"s": [b"", b"BiasAdd"]}),
    "tensor": AttrValue(tensor={}),
}
# Of these the registry gives no default, but facts look at them.
MORE = """T dtype SrcT DstT Tin Tout Tperm Tidx N num_split num strides ksize padding dilations equation perm axis shape
value data_format fused_ops explicit_paddings transpose_a transpose_b adj_x adj_y num_args num_side_inputs epsilon
frame_name f body cond then_branch else_branch branches shared_name container tensor_name send_device recv_device index
output_shapes _output_shapes _class _xla_must_compile _XlaMustCompile _grappler_fused_ops""".split()


@pytest.mark.parametrize("inputs", [0, 1, 3])
@pytest.mark.parametrize("kind", WRONG)
def test_an_op_of_any_type_that_is_written_wrongly_is_judged(kind: str, inputs: int, tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    path.write_bytes(damaged(WRONG[kind], inputs).SerializeToString())
    document = from_json(to_json(graphlens.load(path).document))
    assert [error.message for error in document.errors] == []
    assert [rule.why for rule in document.rules if rule.status == "error"] == []


def damaged(wrong: Any, inputs: int) -> GraphDef:
    graph = GraphDef()
    weights = graph.node.add(name="weights", op="Const")
    weights.attr["dtype"].type = weights.attr["value"].tensor.dtype = 1
    weights.attr["value"].tensor.tensor_shape.dim.add().size = 3
    weights.attr["value"].tensor.float_val.extend([0, 1, 2])
    for op, info in table().items():
        node = graph.node.add(name=f"an_op/{op}", op=op)
        node.input.extend(["weights", "an_op/Relu", "weights"][:inputs])
        for name in [*info.defaults, *MORE] if wrong is not None else ():
            node.attr[name].CopyFrom(wrong)
    return graph
