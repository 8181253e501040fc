"""The drawing of an input pipeline: which boxes stand there, what flows from one to another, and what is marked."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import NamedTuple
from xml.etree import ElementTree

from graphlens.ir.analysis import Document
from graphlens.ir.pipelines import DATASET, InputPipeline, InputStage
from graphlens.pipeline.judge import judge
from graphlens.report.html import render
from graphlens.testing.sketch import sketch

SKETCH = """
called: train_step dispatch 50us input 6ms python 50us
pipeline: cores 2 | Prefetch (PrefetchDataset:4) buffer 2 <- BatchV2 (BatchDatasetV2:3) 20us <- Map (MapDataset:2) 8ms
x   = Placeholder() float32[32,64]
y   = Relu(x) float32[32,64] 3ms
out = _Retval(y)
"""
STEPS = "the steps"
# A prefetch that TensorFlow added, a fused map and batch, and a zip of an interleave with a range.
BRANCHES = (
    InputStage("Prefetch", "Prefetch", reads=(1,), waiting_ns=6_000_000),
    InputStage(
        "MapDataset:8+BatchDatasetV2:9", "MapAndBatch", ("MapDataset:8", "BatchDatasetV2:9"), (2,),
        "train.py:14", "augment", step_ns=2_000_000, elements_per_s=1500.0, parallelism=4, autotune=True,
    ),
    InputStage("ZipDataset:7", "Zip", ("ZipDataset:7",), (3, 5), step_ns=10_000),
    InputStage("InterleaveDataset:3", "Interleave", ("InterleaveDataset:3",), (4,), step_ns=20_000),
    InputStage("InterleaveDataset:3/MapDataset", "Map", ("InterleaveDataset:3/MapDataset",), step_ns=8_000_000),
    InputStage("RangeDataset:5", "Range", ("RangeDataset:5",)),
)  # fmt: skip


class Drawing(NamedTuple):
    boxes: dict[str, list[str]]
    arrows: set[tuple[str, str]]
    classes: dict[str, set[str]]
    label: str

    def marked(self, mark: str) -> list[str]:
        return [name for name, classes in self.classes.items() if mark in classes]


@cache
def document() -> Document:
    return judge(sketch(SKETCH)).document


def page_of(*pipelines: InputPipeline) -> str:
    return render(replace(document(), input=pipelines))


def drawings(page: str) -> list[Drawing]:
    found = re.findall(r'<figure class="card chain">.*?(<svg .*?</svg>)', page, re.DOTALL)
    return [_drawing(ElementTree.fromstring(svg)) for svg in found]


def _drawing(svg: ElementTree.Element) -> Drawing:
    boxes = {}
    classes = {}
    arrows = set()
    for group in svg.iter("g"):
        kind, *others = group.attrib.get("class", "").split()
        title = group.findtext("title") or ""
        if kind == "node":
            boxes[title] = [line.text or "" for line in group.findall("text")]
            classes[title] = set(others)
        elif kind == "edge":
            arrows.add(tuple(title.split(" -> ")))
    return Drawing(boxes, arrows, classes, svg.attrib["aria-label"])


def test_each_stage_that_ran_is_a_box_and_elements_flow_from_the_source_to_the_steps():
    (drawing,) = drawings(render(document()))
    assert set(drawing.boxes) == {"PrefetchDataset:4", "BatchDatasetV2:3", "MapDataset:2", STEPS}
    assert drawing.arrows == {
        ("MapDataset:2", "BatchDatasetV2:3"),
        ("BatchDatasetV2:3", "PrefetchDataset:4"),
        ("PrefetchDataset:4", STEPS),
    }


def test_the_limiting_stage_is_marked_with_its_work_and_the_waiting_is_written_where_it_is():
    (drawing,) = drawings(render(document()))
    (stage,) = (one for one in document().input[0].stages if one.name == "MapDataset:2")
    assert drawing.marked("subject") == ["MapDataset:2"]
    name, line, *numbers = drawing.boxes["MapDataset:2"]
    assert name == "MapDataset:2 - limits"
    assert line.startswith(f"{stage.function}, ")
    assert numbers == ["own work 8.00 ms a step", "1 at a time, 125 elements/s"]
    assert "waited for 6.00 ms a step" in drawing.boxes["PrefetchDataset:4"]
    assert drawing.boxes[STEPS] == [STEPS, "wait 6.00 ms for input"]
    assert drawing.label == "Drawing of 3 stages of the input pipeline train; MapDataset:2 limits it"


def test_branches_join_fused_stages_name_the_users_and_what_tensorflow_added_is_said():
    page = page_of(replace(document().input[0], stages=BRANCHES, limiting=4))
    (drawing,) = drawings(page)
    fused = "MapDataset:8+BatchDatasetV2:9"
    assert drawing.arrows == {
        ("InterleaveDataset:3/MapDataset", "InterleaveDataset:3"),
        ("InterleaveDataset:3", "ZipDataset:7"),
        ("RangeDataset:5", "ZipDataset:7"),
        ("ZipDataset:7", fused),
        (fused, "Prefetch"),
        ("Prefetch", STEPS),
    }
    assert drawing.boxes[fused] == [
        "MapAndBatch",
        "augment, train.py:14",
        "own work 2.00 ms a step",
        "4 at a time (tuned), 1,500 elements/s",
        "fused of MapDataset:8",
        "and BatchDatasetV2:9",
    ]
    assert drawing.marked("added") == ["Prefetch"]
    assert drawing.boxes["Prefetch"][1] == "added by TensorFlow"
    assert drawing.boxes["RangeDataset:5"][2] == "own work unknown"
    assert "TensorFlow added those with a dashed frame." in page


def test_where_the_profile_names_no_stage_of_the_user_none_is_said_to_be_added():
    unnamed = tuple(replace(stage, name=f"{stage.kind}", stages=()) for stage in BRANCHES)
    page = page_of(replace(document().input[0], stages=unnamed, limiting=None))
    (drawing,) = drawings(page)
    assert drawing.marked("added") == drawing.marked("subject") == []
    assert "dashed frame" not in page
    assert "thick frame" not in page


def test_a_stage_that_no_step_waits_for_is_drawn_as_the_slowest_and_not_as_limiting():
    (pipeline,) = document().input
    idle = replace(pipeline, wait=replace(pipeline.wait, median_ns=0, total_ns=0, share=0.0))
    (drawing,) = drawings(page_of(idle))
    assert drawing.boxes["MapDataset:2"][0] == "MapDataset:2 - slowest"
    assert drawing.label.endswith("; MapDataset:2 is its slowest one")


def test_nobody_reads_a_dataset_alone_and_what_only_was_written_has_no_numbers():
    written = tuple(
        InputStage(f"MapDataset:{9 - place}", "MapDataset", (f"MapDataset:{9 - place}",), reads, origin="static")
        for place, reads in enumerate(((1,), ()))
    )
    (drawing,) = drawings(page_of(InputPipeline(DATASET, stages=written)))
    assert drawing.arrows == {("MapDataset:8", "MapDataset:9")}
    assert drawing.boxes == {name: [name, "MapDataset"] for name in ("MapDataset:9", "MapDataset:8")}


def test_stages_beyond_sixty_are_one_box():
    stages = tuple(
        InputStage(f"Map:{place}", "Map", (f"Map:{place}",), (place + 1,) if place < 69 else ()) for place in range(70)
    )
    (drawing,) = drawings(page_of(replace(document().input[0], stages=stages, limiting=None)))
    assert len(drawing.boxes) == 60 + 2
    assert drawing.boxes["more stages"] == ["10 more stages", "not drawn"]
    assert {arrow for arrow in drawing.arrows if "more stages" in arrow} == {("more stages", "Map:59")}


def test_pipelines_whose_stages_have_the_same_names_share_no_identifier():
    (pipeline,) = document().input
    page = page_of(pipeline, replace(pipeline, id="validation"))
    assert [drawing.label.split(";")[0][-10:] for drawing in drawings(page)] == ["line train", "validation"]
    identifiers = re.findall(r' id="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
