"""What a script does outside of any function, as the watch marks it in a profile."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from graphlens.ir.run import Mark

GRADIENT: Final = "gradient"  # the kind of the marks
READ: Final = "read"  # and of those where a tensor becomes a value of Python; the method is the detail

How = Literal["loop", "keras", "functions"]


class Asked(NamedTuple):
    """A call for gradients, as a mark tells of it.

    ``site`` numbers the places of the calls, told apart by the whole stack; ``function`` is the user's Python function
    that made the tape.  ``how`` says why it runs eagerly: it is in no function, Keras was told to (``run_eagerly``), or
    TensorFlow (``run_functions_eagerly``).
    """

    site: int
    how: How
    function: str

    def text(self) -> str:
        """Return it as the detail of a mark."""
        return f"{self.site} {self.how} {self.function}".rstrip()  # a profile keeps no space at the end


def asked_of(mark: Mark) -> Asked:
    """Return what a mark tells.

    >>> asked_of(Mark("gradient", 0, 1, 0, Asked(3, "loop", "train.<locals>.step").text()))
    Asked(site=3, how='loop', function='train.<locals>.step')
    >>> asked_of(Mark("gradient", 0, 1, 0, Asked(3, "loop", "").text()))
    Asked(site=3, how='loop', function='')
    """
    site, how, function = [*mark.detail.split(" ", 2), ""][:3]
    return Asked(int(site), "keras" if how == "keras" else "functions" if how == "functions" else "loop", function)
