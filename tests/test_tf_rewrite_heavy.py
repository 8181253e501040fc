"""Folding on real architectures: the outputs agree, nothing that could be folded is left, and the copy is no slower."""

from __future__ import annotations

from pathlib import Path

import pytest
from end_to_end import python

pytestmark = [pytest.mark.tf, pytest.mark.heavy]

# In a process of its own: build, write, fold, write again; prints the largest relative difference of the logits, the
# ratio of the sizes on disk, the scales left, and the ratio of CPU times of original and unedited copy.
CHECK = """
import sys, time
from pathlib import Path
import numpy as np, tensorflow as tf
from fixtures import models
from graphlens.ir.edits import FoldAffine, FoldPadding
from graphlens.tf import rewrite
from graphlens.tf.open import targets
name, folder, highest = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
source, result = folder / "source", folder / "result"
models.write(name, source)
opened = targets.open_target(str(source), "saved_model")
program = rewrite.extract(opened)
folded = rewrite.apply(program, [FoldAffine()])
x = [tf.constant(np.random.default_rng(0).random((1, 224, 224, 3), np.float32) * highest)]
before, after = (rewrite.build(rewrite.probing(one)).call(x)["output_0"].numpy() for one in (program, folded))
rewrite.write_saved_model(source, {"serving_default": [FoldAffine()]}, result)
sizes = [sum(part.stat().st_size for part in one.rglob("*") if part.is_file()) for one in (result, source)]
left = sum(node.op in {"Rsqrt", "FusedBatchNormV3"} for node in folded.graph.node)
calls = opened.trace(opened.specs).call, rewrite.build(program).call
spent = {}
for call in (*calls, *[calls[index % 2] for index in range(24)]):
    start = time.process_time()
    for _ in range(3):
        call(x)
    spent.setdefault(call, []).append(time.process_time() - start)
first, second = (np.median(spent[call][1:]) for call in calls)
print(np.abs(before - after).max() / np.abs(before).max(), sizes[0] / sizes[1], left, first / second)
"""


@pytest.mark.parametrize(("name", "highest"), [("mobilenet_v2", 1), ("resnet50", 1), ("efficientnet_b0", 255)])
def test_a_network_is_folded_completely(name: str, highest: int, tmp_path: Path) -> None:
    difference, size, left, speed = map(float, python("-c", CHECK, name, str(tmp_path), str(highest)).split()[-4:])
    assert difference < 1e-5
    assert size <= 1.1
    assert left == 0
    assert 0.85 < speed < 1.2  # the copy against the original, on a machine that others use too


PADS = """
import sys
from pathlib import Path
import numpy as np, tensorflow as tf
from fixtures import models
from graphlens.ir.edits import FoldAffine, FoldPadding
from graphlens.tf import rewrite
from graphlens.tf.open import targets
name, folder, highest = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
models.write(name, folder / "source")
program = rewrite.extract(targets.open_target(str(folder / "source"), "saved_model"))
both = [FoldPadding(), FoldAffine()]
padded, *folded = (rewrite.apply(program, edits) for edits in ([both[0]], both, both[::-1]))
x = [tf.constant(np.random.default_rng(0).random((1, 224, 224, 3), np.float32) * highest)]
before, after = (rewrite.build(one).call(x)["output_0"].numpy() for one in (program, padded))
pads = [sum(node.op == "Pad" for node in one.graph.node) for one in (program, padded, *folded)]
types = [sorted(node.op for node in one.graph.node) for one in folded]
print(*pads, np.array_equal(before, after), types[0] == types[1])
"""


# The padding that stays in ResNet50 is one of a pooling.
@pytest.mark.parametrize(
    ("name", "highest", "before", "after"),
    [("mobilenet_v2", 1, 4, 0), ("resnet50", 1, 2, 1), ("efficientnet_b0", 255, 5, 0)],
)
def test_the_paddings_of_a_network_are_folded_bit_for_bit(
    name: str, highest: int, before: int, after: int, tmp_path: Path
) -> None:
    said = python("-c", PADS, name, str(tmp_path), str(highest)).split()[-6:]
    assert said == [str(before), str(after), str(after), str(after), "True", "True"]
