"""The annotated DAG as a file for Gephi, yEd, Graphviz and networkx: GraphML, GEXF or DOT, written piece by piece.

networkx has writers for the first two: they build the whole document in memory (a gigabyte for 150,000 ops), stamp it
with the date, and write control characters, which no reader of XML accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from graphlens.ir.analysis import Document
from graphlens.ir.annotated import Annotated, annotated
from graphlens.ir.dag import Stage
from graphlens.ir.nodes import Edge
from graphlens.report.words import printable

# What an op and an edge are told of, and the type of it in GraphML and GEXF alike.
NODE_TYPES: Final[Mapping[str, str]] = {
    "label": "string",
    "op": "string",
    "device": "string",
    "self_ns": "long",
    "calls_per_step": "double",
    "timing": "string",
    "shapes": "string",
    "dtypes": "string",
    "flops": "long",
    "bytes": "long",
    "origin": "string",
    "executed_as": "string",
    "layer": "string",
    "source": "string",
    "findings": "string",
}
EDGE_TYPES: Final[Mapping[str, str]] = {"kind": "string", "src_port": "long", "dst_port": "long"}

# No character of XML, and of no category of its own that would say so.
_NO_XML: Final = str.maketrans({"\ufffe": "�", "\uffff": "�"})

Attributes = Mapping[str, Any]


def graphml(document: Document, stage: Stage | None) -> Iterator[str]:
    """Yield the DAG as GraphML 1.0; the ids of nodes are the names of ops.

    Raises
    ------
    UsageError
        When the document has no graph of that stage; without one it is the judged graph.
    """
    return _graphml(annotated(document, stage))


def gexf(document: Document, stage: Stage | None) -> Iterator[str]:
    """Yield the DAG as GEXF 1.2, as :func:`graphml` does."""
    return _gexf(annotated(document, stage))


def dot(document: Document, stage: Stage | None) -> Iterator[str]:
    """Yield the DAG in the language of Graphviz, as :func:`graphml` does; what no drawing needs is there as well."""
    return _dot(annotated(document, stage))


# -- XML -----------------------------------------------------------------------------------------------------


def _graphml(graph: Annotated) -> Iterator[str]:
    keys = {
        kind: {name: f"{kind[0]}{number}" for number, name in enumerate(types)}
        for kind, types in (("node", NODE_TYPES), ("edge", EDGE_TYPES))
    }
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
    for kind, types in (("node", NODE_TYPES), ("edge", EDGE_TYPES)):
        for name, type_ in types.items():
            yield f'  <key id="{keys[kind][name]}" for="{kind}" attr.name="{name}" attr.type="{type_}"/>\n'
    yield f'  <graph id="{graph.dag.stage}" edgedefault="directed">\n'
    for identity, attributes in _nodes(graph):
        yield f"    <node id={quoteattr(identity)}>{_data(keys['node'], attributes)}</node>\n"
    for number, (source, reader, attributes) in enumerate(_edges(graph)):
        ends = f"source={quoteattr(source)} target={quoteattr(reader)}"
        yield f'    <edge id="e{number}" {ends}>{_data(keys["edge"], attributes)}</edge>\n'
    yield "  </graph>\n</graphml>\n"


def _data(keys: Mapping[str, str], attributes: Attributes) -> str:
    return "".join(f'<data key="{keys[name]}">{escape(_text(value))}</data>' for name, value in attributes.items())


def _gexf(graph: Annotated) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<gexf xmlns="http://www.gexf.net/1.2draft" version="1.2">\n'
    yield '  <graph mode="static" defaultedgetype="directed">\n'
    for kind, types in (("node", NODE_TYPES), ("edge", EDGE_TYPES)):
        yield f'    <attributes class="{kind}" mode="static">\n'
        for name, type_ in types.items():
            yield f'      <attribute id="{name}" title="{name}" type="{type_}"/>\n'
        yield "    </attributes>\n"
    yield "    <nodes>\n"
    for identity, attributes in _nodes(graph):
        label = quoteattr(_text(attributes["label"]))
        yield f"      <node id={quoteattr(identity)} label={label}>{_values(attributes)}</node>\n"
    yield "    </nodes>\n    <edges>\n"
    for number, (source, reader, attributes) in enumerate(_edges(graph)):
        ends = f"source={quoteattr(source)} target={quoteattr(reader)}"
        yield f'      <edge id="{number}" {ends}>{_values(attributes)}</edge>\n'
    yield "    </edges>\n  </graph>\n</gexf>\n"


def _values(attributes: Attributes) -> str:
    values = "".join(f'<attvalue for="{name}" value={quoteattr(_text(value))}/>' for name, value in attributes.items())
    return f"<attvalues>{values}</attvalues>"


# -- DOT -----------------------------------------------------------------------------------------------------


def _dot(graph: Annotated) -> Iterator[str]:
    yield f"digraph {_quoted(graph.dag.stage)} {{\n  node [shape=box];\n"
    for identity, attributes in _nodes(graph):
        label = rf'"{_inside_quotes(attributes["op"])}\n{_inside_quotes(attributes["label"])}"'
        # Graphviz has a `layer` of its own.
        told = {"model_layer" if name == "layer" else name: value for name, value in attributes.items()}
        yield f"  {_quoted(identity)} [{_assigned({**told, 'label': label})}];\n"
    for source, reader, attributes in _edges(graph):
        style = "dashed" if attributes["kind"] == "control" else "solid"
        yield f"  {_quoted(source)} -> {_quoted(reader)} [style={style}, {_assigned(attributes)}];\n"
    yield "}\n"


def _assigned(attributes: Attributes) -> str:
    return ", ".join(
        f"{name}={value if name == 'label' else _quoted(_text(value))}" for name, value in attributes.items()
    )


def _quoted(text: str) -> str:
    """Quote a text, so that nothing in it is a port, markup, an escape or the end of it."""
    return f'"{_inside_quotes(text)}"'


def _inside_quotes(text: str) -> str:
    return _clean(text).replace("\\", r"\\").replace('"', r"\"")


# -- nodes and edges -----------------------------------------------------------------------------------------


def _nodes(graph: Annotated) -> Iterator[tuple[str, Attributes]]:
    """Yield the id of each op and what is known of it: no format has a word for what is not."""
    for identity, (name, attributes) in zip(_identities(graph.dag.name), graph.nodes(), strict=True):
        known = {key: value for key, value in attributes.items() if value is not None and value != []}
        yield identity, {"label": name.rpartition("/")[2] or name, **known}


def _edges(graph: Annotated) -> Iterator[tuple[str, str, Attributes]]:
    identities = _identities(graph.dag.name)
    for source, reader, edge in graph.edges():
        yield identities[source], identities[reader], _of_edge(edge)


def _of_edge(edge: Edge) -> Attributes:
    ports = {"src_port": edge.src_port, "dst_port": edge.dst_port}
    return {"kind": edge.kind, **{name: port for name, port in ports.items() if port is not None}}


def _identities(names: Sequence[str]) -> list[str]:
    """Return names that every format can say; those that had to be changed are told apart from all others."""
    identities = list(map(_clean, names))
    changed = [position for position, name in enumerate(names) if identities[position] != name]
    taken = set(names).difference(names[position] for position in changed)
    for position in changed:
        while identities[position] in taken:
            identities[position] += "'"
        taken.add(identities[position])
    return identities


def _clean(text: str) -> str:
    return printable(text).translate(_NO_XML)


def _text(value: Any) -> str:
    """Write a value of an attribute; several are separated by commas.

    >>> _text([(2, None), None]), _text(1.0), _text(["a", "b"])
    ('[2,?], […]', '1.0', 'a, b')
    """
    if isinstance(value, list):
        return ", ".join(map(_text, value)) if value and isinstance(value[0], str) else ", ".join(map(_shape, value))
    return _clean(value) if isinstance(value, str) else repr(value)


def _shape(shape: Sequence[int | None] | None) -> str:
    return "[…]" if shape is None else f"[{','.join('?' if size is None else str(size) for size in shape)}]"


Writer = Callable[[Document, Stage | None], Iterator[str]]

WRITERS: Final[Mapping[str, Writer]] = {".graphml": graphml, ".gexf": gexf, ".dot": dot}
