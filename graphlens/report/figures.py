"""Draw the ops around a finding: figure -> DOT -> SVG that follows the theme of the page.

The layout is done by Graphviz in a process of its own, so that a hang costs its time limit and nothing else.
Names never become DOT identifiers, and every label is escaped and ASCII, because the bundled Graphviz measures
other glyphs wrongly.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from time import monotonic
from xml.etree import ElementTree

import graphviz

from graphlens.children.tool import ToolError, run_tool
from graphlens.ir.analysis import Figure, FigureNode
from graphlens.ir.devices import short_device
from graphlens.report.ink import Ink
from graphlens.report.words import NOT_SEEN, printable, shared_scope, shorten
from graphlens.units import counted, format_ns

DOT_VARIABLE = "GRAPHLENS_DOT"

# One layout of 28 ops takes 20 to 90 ms; ten seconds mean that something hangs.
TIME_LIMIT_S = 10.0
# All figures of one report together: what a person waits for without asking why.
BUDGET_S = 20.0
# Graphviz needs seconds beyond a few hundred nodes, and nobody reads such a figure.
NODE_LIMIT = 300
# Wider drawings (px) are laid out from top to bottom instead of left to right.
WIDTH_LIMIT = 980
# Up to this width (px) a drawing is shrunk to the page; beyond, its text would be too small, and it scrolls.
SHRINK_LIMIT = 1300
# Up to this width (px) it is shrunk to a phone as well, on which letters of 11 px become 7.
PHONE_WIDTH = 450
LABEL_CHARACTERS = 34
OP_CHARACTERS = 40
HEAT_STEPS = 5
PLAIN = Ink()
EDGE_CLASSES = {"data": "data", "control": "control", "transfer": "transfer"}

_KEPT_ATTRIBUTES = frozenset({"class", "id", "d", "points", "transform", "viewBox", "x", "y", "cx", "cy", "rx", "ry"})


@dataclass(frozen=True, slots=True)
class Skipped:
    """Why there is no drawing, in words for the reader of the report."""

    reason: str


def draw_all(
    figures: Sequence[Figure | None],
    ink: Ink = PLAIN,
    budget_s: float = BUDGET_S,
    narrow: Collection[int] = (),
    prefix: str = "fig",
) -> list[str | Skipped | None]:
    """Draw several figures at once; those that the time budget does not reach are skipped with a note.

    Those whose index is in ``narrow`` share the width of the page with another one, or are for a phone.  ``prefix``
    starts every identifier, so that two lots of figures live in one page.
    """
    deadline = monotonic() + budget_s
    prefixes = [f"{prefix}{index}" for index in range(1, len(figures) + 1)]
    limits = [0.0 if index in narrow else WIDTH_LIMIT for index in range(len(figures))]
    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1)) as pool:
        return list(pool.map(partial(_draw_before, deadline, ink), figures, prefixes, limits))


def draw(
    figure: Figure,
    prefix: str = "fig1",
    time_limit_s: float = TIME_LIMIT_S,
    ink: Ink = PLAIN,
    width_limit: float = WIDTH_LIMIT,
) -> str | Skipped:
    """Draw ``figure`` as an ``<svg>`` element without scripts, styles or identifiers of other figures.

    ``prefix`` starts every identifier, so that several figures live in one page; ``ink`` colours ops by device where
    there are several, and writes sizes on transfers.  Where ``width_limit`` (px) is exceeded the narrower one of both
    directions is chosen.
    """
    if len(figure.nodes) > NODE_LIMIT:
        return Skipped(f"figure skipped: {len(figure.nodes)} ops are more than the {NODE_LIMIT} that stay readable")
    if not figure.nodes:
        return Skipped("figure skipped: it holds no ops")
    dot = find_dot()
    if dot is None:
        return Skipped(
            "figure skipped: no Graphviz was found; reinstall graphviz-pure, or name a `dot` executable in "
            f"the environment variable {DOT_VARIABLE}"
        )
    try:
        return _finish(_laid_out_readably(dot, figure, time_limit_s, ink, width_limit), figure, prefix, ink.spoken)
    except ToolError as error:
        return Skipped(f"figure skipped: Graphviz ({dot.name}) {error}")
    except ElementTree.ParseError as error:
        return Skipped(f"figure skipped: Graphviz ({dot.name}) failed with {type(error).__name__}")


def find_dot() -> Path | None:
    """Return the Graphviz executable: the one the user names, else the bundled one, else the system's."""
    named = os.environ.get(DOT_VARIABLE)
    if named:
        return Path(named)
    system = shutil.which("dot")
    return _bundled_dot() or (Path(system) if system else None)


def _bundled_dot() -> Path | None:
    try:
        files = distribution("graphviz-pure").files or ()
    except PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if Path(file).stem == "graphviz-pure")
    return next((path for path in paths if path.suffix in ("", ".exe") and path.is_file()), None)


# -- drawing -------------------------------------------------------------------------------------------------


def _draw_before(
    deadline: float, ink: Ink, figure: Figure | None, prefix: str, width_limit: float
) -> str | Skipped | None:
    if figure is None:
        return None
    left_s = deadline - monotonic()
    if left_s <= 0:
        return Skipped("figure skipped: the time for all figures of this report was used up")
    return draw(figure, prefix, min(TIME_LIMIT_S, left_s), ink, width_limit)


def _laid_out_readably(
    dot: Path, figure: Figure, time_limit_s: float, ink: Ink, width_limit: float
) -> ElementTree.Element:
    """Lay out from left to right, or from top to bottom where that would be too wide for its place."""
    across = _layout(dot, _dot_source(figure, "LR", ink), time_limit_s)
    if _width(across) <= width_limit:
        return across
    return min(across, _layout(dot, _dot_source(figure, "TB", ink), time_limit_s), key=_width)


def _layout(dot: Path, source: str, time_limit_s: float) -> ElementTree.Element:
    return ElementTree.fromstring(run_tool([str(dot), "-Tsvg"], source.encode(), time_limit_s))


# -- DOT -----------------------------------------------------------------------------------------------------


def _dot_source(figure: Figure, direction: str, ink: Ink) -> str:
    graph = graphviz.Digraph("figure", graph_attr={"rankdir": direction, "ranksep": "0.4", "nodesep": "0.22"})
    # The page shows 11 px where Graphviz measured 12: other machines' fonts are wider than its own.
    graph.attr("node", shape="box", fontname="Helvetica", fontsize="12", margin="0.16,0.09", height="0.3")
    graph.attr("edge", arrowsize="0.7", fontname="Helvetica", fontsize="11")
    labels = {**_labels(figure), **{name: [*map(_ascii, lines)] for name, lines in ink.lines.items()}}
    classes = _node_classes(figure, ink)
    ids = _ids(figure)
    for node in figure.nodes:
        # Sharp corners against round ones: the ops of the finding are told apart without colour.
        style = "" if node.role == "subject" else "rounded"
        text = graphviz.escape("\n".join(labels[node.name]))
        graph.node(ids[node.name], text, style=style, **{"class": classes[node.name]})
    for source, destination, kind in figure.edges:
        if source in ids and destination in ids:
            size = _size(figure, source, destination, ink) if kind == "transfer" else ""
            label = {"label": f" {_ascii(size)} "} if size else {}
            graph.edge(ids[source], ids[destination], **{"class": EDGE_CLASSES.get(kind, "data")}, **label)
    source_text: str = graph.source
    return source_text


def _size(figure: Figure, source: str, destination: str, ink: Ink) -> str:
    """Return what crosses; copies are known by maker and reader, between which a figure may have send and receive."""
    makers = [source, *(before for before, after, kind in figure.edges if after == source and kind == "data")]
    readers = [
        destination,
        *(after for before, after, kind in figure.edges if before == destination and kind == "data"),
    ]
    found = (ink.sizes.get((maker, reader)) for maker in makers for reader in readers)
    return next(filter(None, found), "")


def _ids(figure: Figure) -> dict[str, str]:
    return {node.name: f"n{index}" for index, node in enumerate(figure.nodes)}


def _labels(figure: Figure) -> dict[str, list[str]]:
    """Return the lines of each op: type, name without what all names share, time, output, device if several."""
    several = len({node.device for node in figure.nodes if node.device}) > 1
    timed = has_times(figure)
    shared = len(shared_scope([node.name for node in figure.nodes]))
    return {
        node.name: [
            _ascii(line)
            for line in (
                shorten(node.op, OP_CHARACTERS),
                shorten(node.name[shared:], LABEL_CHARACTERS),
                _time(node) if timed else "",
                shorten(node.spec or "", LABEL_CHARACTERS),
                short_device(node.device)[:LABEL_CHARACTERS] if several and node.device else "",
            )
            if line
        ]
        for node in figure.nodes
    }


def has_times(figure: Figure) -> bool:
    """Say whether any op of the figure was seen; where none was, the caption says it once for all."""
    return any(node.self_ns is not None for node in figure.nodes)


def _time(node: FigureNode) -> str:
    return NOT_SEEN if node.self_ns is None else format_ns(node.self_ns)


def _ascii(text: str) -> str:
    plain = text.replace("…", "...").encode("ascii", "replace").decode()
    return re.sub(r"[\x00-\x1f\x7f]", " ", plain)


def _node_classes(figure: Figure, ink: Ink) -> dict[str, str]:
    """Say role, warmth and device of each op.

    ``heat0`` to ``heat4`` is its time beside the slowest op of the figure, ``dev0`` and so on the tone of its device
    where the figure has several.
    """
    several = bool(ink.keys(figure))
    untimed = "unseen" if has_times(figure) else "untimed"
    slowest_ns = max((node.self_ns or 0 for node in figure.nodes), default=0)
    return {
        node.name: " ".join(
            (
                "subject" if node.role == "subject" else "context",
                untimed if node.self_ns is None else f"heat{_heat(node.self_ns, slowest_ns)}",
                *((f"dev{ink.tone(node.device)}",) if several and node.device else ()),
                *filter(None, (ink.marks.get(node.name),)),
            )
        )
        for node in figure.nodes
    }


def _heat(self_ns: int, slowest_ns: int) -> int:
    return min(HEAT_STEPS - 1, self_ns * HEAT_STEPS // slowest_ns) if slowest_ns else 0


# -- SVG -----------------------------------------------------------------------------------------------------


def _width(svg: ElementTree.Element) -> float:
    return float(svg.attrib["viewBox"].split()[2])


def _finish(svg: ElementTree.Element, figure: Figure, prefix: str, spoken: str = "") -> str:
    """Make Graphviz' document an element of the page: theme by classes, own identifiers, full names on hover."""
    names = {id_: name for name, id_ in _ids(figure).items()}
    width, height = svg.attrib["viewBox"].split()[2:]
    for element in svg.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key: _shorter(key, value) for key, value in element.attrib.items() if key in _KEPT_ATTRIBUTES}
        element.tail = None
        if "id" in element.attrib:
            element.attrib["id"] = f"{prefix}-{element.attrib['id']}"
    for group in svg.iter("g"):
        _finish_group(group, names)
    svg.attrib = {
        "class": _size_class(float(width)),
        "role": "img",
        "aria-label": printable(spoken) or _spoken(figure),
        "viewBox": svg.attrib["viewBox"],
        "width": width.split(".")[0],
        "height": height.split(".")[0],
    }
    return ElementTree.tostring(svg, encoding="unicode", short_empty_elements=True)


def _size_class(width: float) -> str:
    return "graph slim fit" if width <= PHONE_WIDTH else "graph fit" if width <= SHRINK_LIMIT else "graph"


def width_of(drawing: str) -> float:
    """Return how wide (px) a drawing is before anything shrinks it."""
    found = re.search(r'^<svg [^>]*?width="(\d+)"', drawing)
    return float(found[1]) if found else 0.0


def _shorter(key: str, value: str) -> str:
    """Write coordinates with one decimal: a tenth of a pixel is less than anybody sees, and pages hold thousands."""
    if key not in ("d", "points", "x", "y"):
        return value
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), value)


def _finish_group(group: ElementTree.Element, names: dict[str, str]) -> None:
    kind = group.attrib.get("class", "").split(" ")[0]
    title = group.find("title")
    if kind == "graph":
        # The background would hide the page's own, and the title would be shown on hover everywhere.
        for child in [*group.findall("polygon")[:1], *([title] if title is not None else [])]:
            group.remove(child)
    elif title is not None and title.text:
        title.text = printable(" -> ".join(names.get(part, part) for part in title.text.split("->")))
    if kind == "node":
        for index, line in enumerate(group.findall("text")):
            line.attrib["class"] = f"line{index}"


def _spoken(figure: Figure) -> str:
    subjects = [printable(node.name) for node in figure.nodes if node.role == "subject"]
    return (
        f"Drawing of {counted(len(figure.nodes), 'op')} of the {printable(figure.stage)} graph "
        f"around {', '.join(subjects[:3]) or 'the finding'}"
    )
