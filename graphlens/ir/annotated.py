"""The annotated DAG of a document for networkx: what is known of each op on its node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal

from graphlens.errors import UsageError
from graphlens.ir.analysis import Document, Finding
from graphlens.ir.dag import Dag, Stage
from graphlens.ir.nodes import Edge

if TYPE_CHECKING:
    import networkx as nx

_PROFILE_ALONE: Final = (
    "only a profile is known; name the model that ran too: to `record`, or to `analyze` with the profile as --profile"
)


INPUT: Final = "input"  # in the place of a stage of the program: the pipeline that feeds it
AnyStage = Stage | Literal["input"]


def networkx_of(document: Document, stage: AnyStage | None = None, program: str | None = None) -> nx.MultiDiGraph:
    """Return the annotated DAG of one stage as a plain graph of the caller's own.

    Parameters
    ----------
    stage
        ``traced``, ``optimized`` or ``executed``; by default the executed one where there is one, else the traced one.
        ``input`` is the pipeline that feeds it.
    program
        The ``id`` of a program, or of a pipeline; by default the judged one.

    Raises
    ------
    UsageError
        When the document has no such graph.
    """
    import networkx as nx

    if stage == INPUT:
        return _input_graph(document, program)
    chosen = annotated(document, stage, program)
    graph, names = nx.MultiDiGraph(), chosen.dag.name
    for name, attributes in chosen.nodes():
        graph.add_node(name, **attributes)
    for source, reader, edge in chosen.edges():
        graph.add_edge(names[source], names[reader], kind=edge.kind, src_port=edge.src_port, dst_port=edge.dst_port)
    return graph


def _input_graph(document: Document, pipeline: str | None) -> nx.MultiDiGraph:
    """Return a pipeline as a graph: its stages with all that is known of each, elements going along the edges."""
    import networkx as nx

    chosen = next((one for one in document.input if pipeline in (None, one.id)), None)
    if chosen is None:
        known = ", ".join(one.id for one in document.input)
        raise UsageError(
            f"this analysis has no input pipeline{f' {pipeline!r}' if pipeline else ''}; "
            + (f"choose from {known}" if known else "none was seen")
        )
    graph = nx.MultiDiGraph()
    limiting = None if chosen.limiting is None else chosen.stages[chosen.limiting].name
    for stage in chosen.stages:
        attributes = {
            part.name: getattr(stage, part.name) for part in fields(stage) if part.name not in {"name", "reads"}
        }
        graph.add_node(stage.name, **attributes, limits=stage.name == limiting)
    for stage in chosen.stages:
        for read in stage.reads:
            graph.add_edge(chosen.stages[read].name, stage.name)
    return graph


@dataclass(frozen=True, slots=True)
class Annotated:
    """A graph of a document, and the codes of the findings about its ops."""

    dag: Dag
    codes: Mapping[str, Sequence[str]]

    def nodes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name of each op with what is known of it, in objects of the caller's own."""
        for name, attributes in zip(self.dag.name, _attributes(self.dag), strict=True):
            attributes["findings"] = sorted(self.codes.get(name, ()))
            yield name, attributes

    def edges(self) -> Iterator[tuple[int, int, Edge]]:
        """Yield ``(source, reader, edge)``, by position and source: in the order in which networkx hands them out."""
        edges = self.dag.edges
        readers = [reader for reader, count in enumerate(edges.counts) for _ in range(count)]
        for at in sorted(range(len(readers)), key=edges.sources.__getitem__):
            yield edges.sources[at], readers[at], edges.kinds[edges.codes[at]]


def annotated(document: Document, stage: Stage | None = None, program: str | None = None) -> Annotated:
    """Return a graph of ``document``; the parameters and errors are those of :func:`networkx_of`."""
    stage = stage or judged_stage(document)
    judged = _judged(document)
    dag = _dag(document, stage, judged if program is None else program)
    return Annotated(dag, _codes_by_op(document.findings, stage) if dag.program == judged else {})


def judged_stage(document: Document) -> Stage:
    """Return which graph of the document is judged: the executed one where there is one, else that as written."""
    return "executed" if "executed" in document.graphs else "traced"


def _judged(document: Document) -> str | None:
    """Return the id of the judged program, whose graphs are the first; ``None`` where it has none."""
    return document.dags[0].program if document.graphs and document.dags else None


def _dag(document: Document, stage: Stage, program: str | None) -> Dag:
    for dag in document.dags:
        if (dag.program, dag.stage) == (program, stage):
            return dag
    if document.graphs and not document.dags:
        raise UsageError(
            "this analysis has no graphs: it was taken from a page, or written by an earlier version; "
            "analyze the target or its capture again"
        )
    known = [dag.stage for dag in document.dags if dag.program == program]
    raise UsageError(f"this analysis has no {stage} graph{_of(document, program)}; {_instead(document, known)}")


def _of(document: Document, program: str | None) -> str:
    return f" of a program '{program}'" if program is not None and program != _judged(document) else ""


def _instead(document: Document, known: Sequence[str]) -> str:
    if known:
        return f"choose from {', '.join(known)}"
    programs = dict.fromkeys(dag.program for dag in document.dags)
    return f"there are those of {', '.join(programs)}" if programs else _PROFILE_ALONE


def _codes_by_op(findings: Sequence[Finding], stage: Stage) -> Mapping[str, Sequence[str]]:
    codes: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        if finding.stage == stage:
            for name in finding.nodes:
                codes[name].append(finding.code)
    return codes


def _attributes(dag: Dag) -> Iterator[dict[str, Any]]:
    size = len(dag.name)
    nothing: Sequence[None] = (None,) * size
    outputs = [() if code is None else dag.outputs.values[code] for code in dag.outputs.codes] or [()] * size
    columns = {
        "op": dag.op.column(size),
        "device": dag.device.column(size),
        "self_ns": dag.self_ns or nothing,
        "calls_per_step": dag.calls_per_step or nothing,
        "timing": dag.timing.column(size),
        "shapes": [[spec.shape for spec in specs] or None for specs in outputs],
        "dtypes": [[spec.dtype for spec in specs] or None for specs in outputs],
        "flops": dag.flops or nothing,
        "bytes": dag.bytes or nothing,
        "origin": map(list, dag.origin) if dag.origin else ([name] for name in dag.name),
        "executed_as": dag.executed_as or nothing,
        "layer": dag.layer.column(size),
        "source": dag.source.column(size),
    }
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))
