"""What the graph leaves unsaid: programs that an op holds as data, and ops that TensorFlow does not have."""

from __future__ import annotations

from collections.abc import Iterator

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph, traced_graph
from graphlens.ir import foreign_ops, stablehlo
from graphlens.ir.nodes import Op
from graphlens.ir.table import NO_OPS, Table
from graphlens.units import counted, format_bytes


@fact
def programs_in_ops(facts: Facts) -> tuple[tuple[Op, stablehlo.Program], ...]:
    """Return the ops that hold a StableHLO program, each with what its bytes say of it."""
    table = _written(facts)
    ops = map(table.op, table.of_types({stablehlo.MODULE_OP}))
    return tuple((op, program) for op in ops if (program := stablehlo.program_of(op.attrs)) is not None)


def _written(facts: Facts) -> Table:
    traced = facts(traced_graph)
    return facts(judged_graph) if traced is None else traced


def notes(facts: Facts) -> tuple[str, ...]:
    """Say what was not looked into, what cannot be run, and for whom."""
    return (*_of_programs(facts), *_of_foreign_ops(facts))


def _of_programs(facts: Facts) -> Iterator[str]:
    held = facts(programs_in_ops)
    if not held:
        return
    if not facts.evidence.hlo:
        distinct = list(dict.fromkeys(_in_words(program) for _, program in held))
        are = "holds a StableHLO program" if len(held) == 1 else "hold StableHLO programs"
        yield f"{counted(len(held), 'op')} {are} ({'; '.join(distinct[:3])}) that was not looked into"
    version = facts.evidence.environment.get("tensorflow")
    whys = [stablehlo.why_unreadable(program, version and str(version)) for _, program in held]
    for (op, _), why in zip(held, whys, strict=True):
        if why is not None:
            yield f"the first call of '{op.name}' fails: its program was {why}"
            return


def _in_words(program: stablehlo.Program) -> str:
    written = f", written by StableHLO {program.version}" if program.version else ""
    return f"{'/'.join(program.platforms) or 'any device'}, {format_bytes(program.nbytes)}{written}"


def _of_foreign_ops(facts: Facts) -> Iterator[str]:
    if facts.evidence.traced is None:
        return
    table = _written(facts)
    types = foreign_ops.foreign(table.by_type)
    if types and table is not NO_OPS:
        number = sum(len(table.by_type[kind]) for kind in types)
        are = "is of a type" if number == 1 else "are of types"
        yield (
            f"{counted(number, 'op')} {are} that TensorFlow does not have: {foreign_ops.listed(types)}; what "
            f"{'it does' if number == 1 else 'they do'} was not judged"
        )
