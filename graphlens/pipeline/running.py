"""A script of the user: it runs by itself, and the window of it that was recorded is judged."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from graphlens import workplace
from graphlens.children import script
from graphlens.config import Progress, Request
from graphlens.errors import TargetError
from graphlens.loaders.capture.parts import MANIFEST

if TYPE_CHECKING:  # nothing is imported before the script is started that is not needed for that
    from graphlens.pipeline.gather import Rerun
    from graphlens.pipeline.result import Analysis

NEVER_CALLED: Final = "the script called no function and no Session of TensorFlow: there is nothing to judge"
WOULD_DO_AGAIN: Final = (
    "before its steps were recorded the script {0}, which a second run would do again; pass --rerun to allow that"
)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a script ended, and what is known of it.

    Attributes
    ----------
    code
        Its exit code, negative for the signal that ended it.
    analysis, folder
        What was judged and where it was recorded; ``None`` where ``why_not`` says why there is nothing.
    """

    code: int
    analysis: Analysis | None = None
    folder: Path | None = None
    why_not: str = ""

    @property
    def place(self) -> Path:
        """The folder of what was judged."""
        assert self.folder is not None
        return self.folder


@contextmanager
def run(
    request: Request, words: Sequence[str], progress: Progress, *, stops: bool = False, reruns: bool = False
) -> Iterator[Ran]:
    """Run the script that ``words`` name, with its arguments, and yield what was recorded while it is there.

    Parameters
    ----------
    stops
        Whether the script ends once a window of it was recorded.
    reruns
        Whether it may be run again for proofs whatever it did outside of itself.
    """
    with workplace.temporary() as folder:
        begun_s = time.monotonic()
        code = script.run(folder, request.recording.steps, words, stops=stops)
        from graphlens.pipeline.watched import noted_failure

        failure = noted_failure(folder)
        if not (folder / MANIFEST).exists():
            yield Ran(code, why_not=failure or NEVER_CALLED)
            return
        _note(folder, [failure, *how_it_ended(code)])
        try:
            yield Ran(
                code,
                _judged(request, folder, _rerun(folder, words, time.monotonic() - begun_s, allowed=reruns), progress),
                folder,
            )
        except TargetError as error:
            yield Ran(code, why_not=failure or str(error))


def how_it_ended(code: int) -> list[str]:
    """Say of a script that did not end well how it ended, from its exit code, or the signal as a negative one.

    >>> how_it_ended(0), how_it_ended(3), how_it_ended(-9)
    ([], ['the script ended with exit code 3'], ['the script was ended by SIGKILL'])
    """
    if code < 0:
        known = code in {-one.value for one in signal.Signals}
        return [f"the script was ended by {signal.Signals(-code).name if known else f'signal {-code}'}"]
    return [f"the script ended with exit code {code}"] if code else []


def _note(folder: Path, notes: Iterable[str]) -> None:
    from graphlens.loaders.capture import packing

    packing.amend(folder, notes=list(filter(None, notes)))


def _rerun(folder: Path, words: Sequence[str], took_s: float, *, allowed: bool) -> Rerun:
    """Return how the script is run again, and why not where it did something that a second run would do again."""
    from graphlens.ir.script import DEEDS
    from graphlens.pipeline.gather import Rerun

    noted = folder / DEEDS
    deeds = noted.read_text("utf-8", "replace").splitlines() if noted.exists() and not allowed else []
    return Rerun(tuple(words), took_s, WOULD_DO_AGAIN.format(deeds[0]) if deeds else "", does_again=allowed)


def _judged(request: Request, folder: Path, rerun: Rerun, progress: Progress) -> Analysis:
    from graphlens.pipeline import watched

    return watched.judged(request, folder, progress, watched.NEVER_STEADY, rerun=rerun, is_needed=False)
