#!/usr/bin/env bash
# networkx writes GEXF that networkx cannot read: a column has the type of its first value.
#
# One would guess: numbers are numbers; a file that write_gexf wrote without a word is read by read_gexf. (The GraphML
# writer of the same package keeps two columns, one of integers and one of floats, and reads both.)
#
# What happens: the first node decides. A time of 0 makes the column "long", and 2.5 is written into it; the reader
# stops with ValueError at int("2.5"). With the nodes in the other order the file is read, and 0 comes back as 0.0.
#
# Why it matters: 0 beside floats is what sums and counters give (sum([]) is the integer 0), and whether the file can
# be read depends on the node that happens to be first. A writer of annotated graphs has to state the type per column.
#
# networkx 3.6.1.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   GEXF, 0 first:   column of long; ValueError: invalid literal for int() with base 10: '2.5'
#   GEXF, 2.5 first: column of double; read as [2.5, 0.0]
#   GraphML, 0 first: read as [0, 2.5]
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'networkx==3.6.1'

cat > program.py <<'PROGRAM'
import re

import networkx as nx


def graph(*times):
    graph = nx.DiGraph()
    for name, time in zip("ab", times):
        graph.add_node(name, time=time)
    return graph


def read_back(graph, write, read):
    write(graph, "file")
    try:
        return f"read as {[time for _, time in read('file').nodes(data='time')]}"
    except ValueError as error:
        return f"ValueError: {error}"


def column():
    return re.search('title="time" type="(.*?)"', open("file").read())[1]


integer_first = read_back(graph(0, 2.5), nx.write_gexf, nx.read_gexf)
print(f"GEXF, 0 first:   column of {column()}; {integer_first}")
float_first = read_back(graph(2.5, 0), nx.write_gexf, nx.read_gexf)
print(f"GEXF, 2.5 first: column of {column()}; {float_first}")
graphml = read_back(graph(0, 2.5), nx.write_graphml, nx.read_graphml)
print(f"GraphML, 0 first: {graphml}")
assert integer_first.startswith("ValueError"), integer_first
assert float_first == "read as [2.5, 0.0]", float_first
assert graphml == "read as [0, 2.5]", graphml
PROGRAM

venv/bin/python program.py
