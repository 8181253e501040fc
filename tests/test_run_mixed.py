"""A script that trains in half precision on a processor: what it casts, and what is no longer fused."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.types_pb2 import DT_BFLOAT16, DT_FLOAT
from test_run_scripts import SCRIPTS, Ended, plainly, run

pytestmark = pytest.mark.tf

# Three Dense layers in bfloat16.  Each casts its kernel, its bias and the gradients of both; the first one's input, the
# last one's output and its gradient are cast once.
LAYERS = 3
CASTS = 4 * LAYERS + 3


class Recorded(NamedTuple):
    outcome: Ended
    document: dict[str, Any]
    executed: GraphDef


@pytest.fixture(scope="module")
def without_onednn(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The same on every processor: Eigen's kernels, which multiply bfloat16 nowhere faster than float32."""
    place = tmp_path_factory.mktemp("mixed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        outcome = run(
            "-o", str(place / "r.json"), "-o", str(place / "r.capture"), str(SCRIPTS / "mixed.py"), "mixed_bfloat16"
        )
        assert outcome.out == plainly(str(SCRIPTS / "mixed.py"), "mixed_bfloat16").out
    assert outcome.code == 0, outcome.err
    return Recorded(outcome, json.loads((place / "r.json").read_text("utf-8")), executed_in(place / "r.capture"))


def executed_in(capture: Path) -> GraphDef:
    with zipfile.ZipFile(capture) as parts:
        (name,) = (name for name in parts.namelist() if name.endswith("executed/0.pb"))
        return GraphDef.FromString(parts.read(name))


def test_lost_fusions_and_casts_are_counted_as_by_hand(without_onednn: Recorded) -> None:
    (finding,) = (one for one in without_onednn.document["findings"] if one["code"] == "GL507")
    evidence = finding["evidence"]
    assert (evidence["dtype"], evidence["fusions_lost"], evidence["casts"]) == ("bfloat16", LAYERS, CASTS)
    assert len(evidence["apart"]) == 2 * LAYERS, "a bias and an activation each"
    assert finding["saving"]["origin"] == "modelled"


def test_the_graph_that_ran_says_the_same(without_onednn: Recorded) -> None:
    """A walk of the protobuf alone: float32 is fused where there is a bias, and bfloat16 nowhere."""
    nodes = without_onednn.executed.node
    casts = [node for node in nodes if node.op == "Cast"]
    ends = Counter(frozenset({node.attr["SrcT"].type, node.attr["DstT"].type}) for node in casts)
    assert ends[frozenset({DT_FLOAT, DT_BFLOAT16})] == CASTS
    fused = [node.attr["T"].type for node in nodes if node.op == "_FusedMatMul"]
    assert fused == [DT_FLOAT], "the last layer, which is in float32"
    (finding,) = (one for one in without_onednn.document["findings"] if one["code"] == "GL507")
    types = {node.name: node.op for node in nodes}
    assert Counter(types[name] for name in finding["evidence"]["apart"]) == {"BiasAdd": LAYERS, "Relu": LAYERS}
