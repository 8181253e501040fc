"""What a replay saw gets the executed graph's names where it is certain which op is meant, nowhere else."""

from __future__ import annotations

from tensorboard.compat.proto import graph_pb2

from graphlens.tf.record import alignment


def aligned(executed: list[str], replayed: list[str]) -> dict[str, str]:
    partition = graph_pb2.GraphDef()
    for name in executed:
        partition.node.add(name=name)
    return alignment.align({name: name for name in replayed}, [partition])


def test_a_loop_is_found_although_it_was_numbered_differently() -> None:
    assert aligned(["while/body/_12/MatMul"], ["while/body/_13/MatMul"]) == {
        "while/body/_12/MatMul": "while/body/_13/MatMul"
    }


def test_ops_that_differ_in_their_number_only_are_left_out() -> None:
    # `merge/_2` is in both, but the replay counted from another start: it may be another variable of the loop.
    assert aligned(["merge/_1", "merge/_2"], ["merge/_2", "merge/_3"]) == {}
    assert aligned(["merge/_1", "merge/_2"], ["merge/_1", "merge/_2"]) == {
        "merge/_1": "merge/_1",
        "merge/_2": "merge/_2",
    }


def test_an_op_inside_a_called_function_is_found_by_its_own_name() -> None:
    partition = graph_pb2.GraphDef()
    partition.node.add(name="outer/call", op="PartitionedCall").attr["f"].func.name = "body"
    body = partition.library.function.add()
    body.signature.name = "body"
    body.node_def.add(name="MatMul")
    assert alignment.align({"MatMul": 1}, [partition]) == {"outer/call/MatMul": 1}
