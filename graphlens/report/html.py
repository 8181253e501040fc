"""The report as one HTML file: no request to anywhere, a strict content security policy, complete without scripts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from graphlens.ir.analysis import Document, Figure
from graphlens.ir.document import to_json
from graphlens.report.figures import PHONE_WIDTH, Skipped, draw_all, width_of
from graphlens.report.ink import DeviceKey, Ink, ink_of
from graphlens.report.kept_templates import kept_templates
from graphlens.report.view import view_of
from graphlens.report.view_findings import FindingView
from graphlens.report.view_pipeline import PipelineView
from graphlens.report.words import printable

# A name may wrap after a slash, dot, comma, underscore or two colons, but no line need be shorter than this: each place
# to wrap costs the page five bytes.
LEAST_LINE = 10

ASSETS = Path(__file__).parent / "assets"
STYLES = ("app.css", "devices.css", "training.css")

# Compressed size up to which the whole analysis travels inside the page; beyond, the page says that it does not.
EMBED_LIMIT_BYTES = 1 << 20
# Packing more ops than this takes seconds and ends above that size anyway (about 30 bytes an op, packed).
EMBED_LIMIT_OPS = 30_000

# Findings are ranked: those after these are folded and not drawn, since a figure costs up to 30 kB of the page.
FINDINGS_DRAWN = 15
# Most programs read one input pipeline, some a second one for validation: the tables tell of the others.
PIPELINES_DRAWN = 4
# The figures of so many findings are drawn for a phone as well, from top to bottom, where they are too wide for one.
DRAWN_FOR_PHONES = 5

# Runs before the first paint, so that the page never flashes in the other theme.
EARLY_SCRIPT = (
    "document.documentElement.classList.add('js');"
    "try{const t=localStorage.getItem('graphlens-theme');"
    "if(t==='light'||t==='dark')document.documentElement.dataset.theme=t}catch(e){}"
)


def render(document: Document) -> str:
    """Return the page; equal documents give equal pages."""
    view, ink = view_of(document), ink_of(document)
    groups = view.copies.groups if view.copies else ()
    ink = replace(ink, sizes={**ink.sizes, **{ends: size for group in groups for ends, size in group.sizes.items()}})
    before, after, of_copies = _figures(view.findings[:FINDINGS_DRAWN], [group.figure for group in groups], ink)
    css, script = "".join(map(_asset, STYLES)), _asset("app.js")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            view=view,
            ink=ink,
            figures=before,
            figures_after=after,
            copy_figures=of_copies,
            chains=_chains(view.input.pipelines if view.input else ()),
            css=Markup(css),
            script=Markup(script),
            early_script=Markup(EARLY_SCRIPT),
            policy=_policy(css, script),
            embedded=_embedded(document),
        )
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure as it is shown: its drawing and legend, or a note why there is none.

    ``phone`` is the drawing for a narrow screen, where the other one would not fit.
    """

    svg: Markup | None = None
    keys: tuple[DeviceKey, ...] = ()
    note: str = ""
    phone: Markup | None = None


def _figures(
    findings: Sequence[FindingView], copies: Sequence[Figure | None], ink: Ink
) -> tuple[list[Drawn], list[Drawn], list[Drawn]]:
    """Draw what findings are about, what is left of it after the fix, and copies."""
    before, after = [finding.figure for finding in findings], [finding.figure_after for finding in findings]
    pairs = [index for index, figure in enumerate(after) if figure]
    first = len(findings)
    drawn = _drawn([*before, *after, *copies], ink, narrow=[*pairs, *(first + index for index in pairs)])
    own = drawn[:first]
    own[:DRAWN_FOR_PHONES] = _for_phones(before[:DRAWN_FOR_PHONES], own[:DRAWN_FOR_PHONES], ink)
    return own, drawn[first : 2 * first], drawn[2 * first :]


def _chains(pipelines: Sequence[PipelineView]) -> list[Drawn]:
    """Draw input pipelines, each with what is written in its own boxes."""
    return [_chain(pipeline, number) for number, pipeline in enumerate(pipelines[:PIPELINES_DRAWN], 1)]


def _chain(pipeline: PipelineView, number: int) -> Drawn:
    drawn = _drawn([pipeline.figure], pipeline.ink, narrow=(), prefix=f"input{number}-")
    return _for_phones([pipeline.figure], drawn, pipeline.ink, prefix=f"phone-input{number}-")[0]


def _drawn(figures: Sequence[Figure | None], ink: Ink, narrow: Collection[int], prefix: str = "fig") -> list[Drawn]:
    return [
        Drawn(Markup(drawing), ink.keys(figure))
        if isinstance(drawing, str) and figure is not None
        else Drawn(note=drawing.reason if isinstance(drawing, Skipped) else "")
        for figure, drawing in zip(figures, draw_all(figures, ink, narrow=narrow, prefix=prefix), strict=True)
    ]


def _for_phones(
    figures: Sequence[Figure | None], drawn: Sequence[Drawn], ink: Ink, prefix: str = "phone"
) -> list[Drawn]:
    """Draw those that are too wide for a phone once more, and keep what became narrower."""
    wide = [
        figure if one.svg and width_of(one.svg) > PHONE_WIDTH else None
        for figure, one in zip(figures, drawn, strict=True)
    ]
    again = draw_all(wide, ink, narrow=range(len(wide)), prefix=prefix)
    return [
        replace(one, phone=Markup(narrow))
        if isinstance(narrow, str) and width_of(narrow) < width_of(one.svg or "")
        else one
        for one, narrow in zip(drawn, again, strict=True)
    ]


def _policy(css: str, script: str) -> str:
    """Allow exactly the style sheet and the scripts of this page, by their hashes, and nothing else."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(css)}",
            f"script-src {_hash(EARLY_SCRIPT)} {_hash(script)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(document: Document) -> str | None:
    if len(document.ops) > EMBED_LIMIT_OPS:
        return None
    packed = gzip.compress(to_json(replace(document, dags=())).encode("utf-8", "backslashreplace"), mtime=0)
    return base64.b64encode(packed).decode() if len(packed) <= EMBED_LIMIT_BYTES else None


@cache
def _asset(name: str) -> str:
    # read_text turns every line end into \n, as browsers do before they compute a hash.
    return (ASSETS / name).read_text("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        bytecode_cache=kept_templates(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["breakable"] = breakable
    return environment


def _finalize(value: Any) -> Any:
    """Clean every text that a template writes; markup is our own and stays."""
    return printable(value, kept="\n\t") if type(value) is str else value


def breakable(name: str, least: int = LEAST_LINE) -> Markup:
    """Escape ``name`` and let it wrap after ``/``, ``.``, ``,``, ``_`` and ``::``, in lines of ``least`` or more."""
    # What escaping inserts holds none of these characters, so a break never lands inside an entity.
    return Markup(
        re.sub(r"\S+", lambda word: "<wbr>".join(_lines(word[0], _line(least))), str(escape(printable(name))))
    )


def _lines(word: str, line: re.Pattern[str]) -> Iterator[str]:
    """Yield what stands between two places to wrap; where a line does not end, none after it does: a name is long."""
    start = 0
    while found := line.match(word, start):
        yield found[0]
        start = found.end()
    yield word[start:]


@cache
def _line(least: int) -> re.Pattern[str]:
    return re.compile(rf".{{{least},}}?(?:[/_.,]|::)(?=.)", re.DOTALL)
