"""The scope that most names of a table share: written once above it instead of in every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# A scope is left out when at least this share of the names lies in it: with less, the exceptions would be the rule.
MOST = 0.6
# Among fewer names than this all must lie in it: an exception among few saves nothing.
FEW = 10
OMITTED = "…/"


@dataclass(frozen=True, slots=True)
class Scope:
    """``path`` ends in a slash, or is empty; ``mark`` stands for it in names where others lie outside of it."""

    path: str = ""
    mark: str = ""

    def short(self, name: str) -> str:
        """Return ``name`` without the scope."""
        inside = bool(self.path) and name.startswith(self.path)
        return self.mark + name[len(self.path) :] if inside else name

    def within(self, text: str) -> str:
        """Return a sentence with the names in it shortened in the same way."""
        return text.replace(self.path, self.mark) if self.path else text

    @property
    def note(self) -> str:
        """Say what the names of the table leave out."""
        return f"{self.mark} stands for" if self.mark else "Names leave out"


def scope_of(names: Iterable[str]) -> Scope:
    """Return the deepest scope in which most names lie.

    >>> scope_of(["m/a/x", "m/a/y", "m/b"]), scope_of(["m/a", "x"]), scope_of([*["m/a"] * 10, "x"])
    (Scope(path='m/', mark=''), Scope(path='', mark=''), Scope(path='m/', mark='…/'))
    """
    known = [name for name in names if name]
    enough = len(known) * (MOST if len(known) >= FEW else 1)
    path = ""
    while True:
        inside = Counter(name[len(path) :].partition("/")[0] for name in known if _deeper(name, path))
        part, count = inside.most_common(1)[0] if inside else ("", 0)
        if not count or count < enough:
            return Scope(path, OMITTED if path and not all(name.startswith(path) for name in known) else "")
        path += f"{part}/"


def _deeper(name: str, path: str) -> bool:
    return name.startswith(path) and "/" in name[len(path) :]
