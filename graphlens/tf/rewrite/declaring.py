"""What a rewrite is: a function that carries out one kind of edit on a draft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from inspect import signature
from typing import Any, get_type_hints

from graphlens.tf.rewrite.draft import Draft

Change = Callable[[Draft, Any], None]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A change of a draft, and the dataclass of the edit that it carries out."""

    edit: type[Any]
    change: Change

    @property
    def kind(self) -> str:
        """The kind of the edit."""
        return str(self.edit.kind)

    def __call__(self, draft: Draft, edit: Any) -> None:
        """Change ``draft``, or raise a ``RewriteError`` that says why not."""
        self.change(draft, edit)


def rewrite(change: Change) -> Rewrite:
    """Turn a function of a draft and an edit into the rewrite for that kind of edit.

    Raises
    ------
    TypeError
        If the second argument is not annotated with a dataclass that has a ``kind``.

    Examples
    --------
    ::

        @dataclass(frozen=True)
        class WidenChannels:
            kind: ClassVar[str] = "acme-widen-channels"
            where: Where = EVERYWHERE

        @rewrite
        def widen_channels(draft: Draft, edit: WidenChannels) -> None:
            for name in named(edit) or draft: …
    """
    hints = get_type_hints(change)
    edit = next((hints.get(name) for name in list(signature(change).parameters)[1:2]), None)
    if not is_dataclass(edit) or not isinstance(getattr(edit, "kind", None), str):
        raise TypeError(f"{change.__qualname__} must say by its second argument's annotation which edit it carries out")
    return Rewrite(edit, change)  # type: ignore[arg-type]  # a dataclass, which is no instance here
