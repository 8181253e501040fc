"""The report as one HTML file: no request to anywhere, a strict content security policy, complete without scripts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from graphlens.ir.analysis import Document
from graphlens.ir.document import to_json
from graphlens.report.figures import Skipped, draw_all
from graphlens.report.view import view_of
from graphlens.report.words import printable

_BREAKS = re.compile(r"(?<=\S)([/_.,])(?=\S)")

ASSETS = Path(__file__).parent / "assets"

# Compressed size up to which the whole analysis travels inside the page; beyond, the page says that it does not.
EMBED_LIMIT_BYTES = 1 << 20
# Packing more ops than this takes seconds and ends above that size anyway (about 30 bytes an op, packed).
EMBED_LIMIT_OPS = 30_000

# Runs before the first paint, so that the page never flashes in the other theme.
EARLY_SCRIPT = (
    "document.documentElement.classList.add('js');"
    "try{const t=localStorage.getItem('graphlens-theme');"
    "if(t==='light'||t==='dark')document.documentElement.dataset.theme=t}catch(e){}"
)


def render(document: Document) -> str:
    """Return the page; equal documents give equal pages."""
    view = view_of(document)
    drawings = draw_all([finding.figure for finding in view.findings] + [item.figure_after for item in view.findings])
    figures, figures_after = drawings[: len(view.findings)], drawings[len(view.findings) :]
    css, script = _asset("app.css"), _asset("app.js")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            view=view,
            figures=[Markup(figure) if isinstance(figure, str) else None for figure in figures],
            figures_after=[Markup(figure) if isinstance(figure, str) else None for figure in figures_after],
            figure_notes=[figure.reason if isinstance(figure, Skipped) else "" for figure in figures],
            css=Markup(css),
            script=Markup(script),
            early_script=Markup(EARLY_SCRIPT),
            policy=_policy(css, script),
            embedded=_embedded(document),
        )
    )


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
    packed = gzip.compress(to_json(document).encode("utf-8", "backslashreplace"), mtime=0)
    return base64.b64encode(packed).decode() if len(packed) <= EMBED_LIMIT_BYTES else None


@cache
def _asset(name: str) -> str:
    # read_text turns every line end into \n, as browsers do before they compute a hash.
    return (ASSETS / name).read_text("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
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


def breakable(name: str) -> Markup:
    """Escape ``name`` and let it wrap after slashes, dots, commas and underscores."""
    # What escaping inserts holds none of these characters, so a break never lands inside an entity.
    return Markup(_BREAKS.sub(r"\1<wbr>", str(escape(printable(name)))))
