"""Ask for what follows from the evidence: a fact is a function, derived once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import update_wrapper
from typing import Any, Final, Generic, TypeVar, cast

from graphlens.errors import GraphLensError, in_words
from graphlens.ir.evidence import Evidence

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
D = TypeVar("D")

_PARTS: Final = frozenset(part.name for part in fields(Evidence))


class FactError(GraphLensError):
    """A fact could not be derived: the message says which, and why; ``fact`` is its name."""

    def __init__(self, fact: str, why: str) -> None:
        super().__init__(f"{fact} failed with {why}; please report it")
        self.fact = fact


class Fact(Generic[T_co]):
    """A function of the facts, to be asked for as ``facts(it)`` and never called."""

    def __init__(self, derive: Callable[[Facts], T_co]) -> None:
        self.derive = derive
        self.name = derive.__name__
        update_wrapper(cast(Any, self), derive)

    def __repr__(self) -> str:
        return f"<fact {self.name}>"


def fact(derive: Callable[[Facts], T]) -> Fact[T]:
    """Turn a function of the facts into one of them; it returns what can be read many times, and never changes.

    Examples
    --------
    ::

        @fact
        def slowest_op(facts: Facts) -> str | None:
            '''The op with most time; ``None`` when nothing was timed.'''
            times = facts(timings)
            return max(times, key=lambda name: times[name].self_ns, default=None)
    """
    return Fact(derive)


@dataclass(slots=True)
class _Answer:
    """What a fact came to, and the parts of the evidence that were read for it, by itself or by facts below it."""

    parts: frozenset[str] = frozenset()
    value: Any = None
    error: GraphLensError | None = None


class Facts:
    """The facts about one piece of evidence: ``facts(ledger)`` is the ledger.

    Every fact is derived at most once; one that fails does so once, and gives the same error to all who ask for it.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._given = evidence
        self._answers: dict[Fact[Any], _Answer] = {}
        self._values: dict[Fact[Any], Any] = {}  # of the answers, those that were given to whoever holds this object
        self._within: tuple[Fact[Any], ...] = ()
        self._parts: set[str] = set()
        self._is_open = True

    def __call__(self, fact: Fact[T]) -> T:
        """Return what ``fact`` comes to.

        Raises
        ------
        FactError
            When it, or a fact that it asks for, cannot be derived.
        GraphLensError
            What the fact itself has to say to the user.
        """
        try:
            return cast(T, self._values[fact])
        except KeyError:
            return self._asked(fact)

    def known(self, fact: Fact[T], otherwise: D) -> T | D:
        """Return what ``fact`` comes to; ``otherwise`` when it fails, which is among ``errors`` then."""
        try:
            return self(fact)
        except FactError:
            return otherwise

    @property
    def errors(self) -> tuple[FactError, ...]:
        """Why facts failed so far, each cause once."""
        errors = (answer.error for answer in self._answers.values())
        return tuple(dict.fromkeys(error for error in errors if isinstance(error, FactError)))

    def with_(self, evidence: Evidence) -> Facts:
        """Return the facts about ``evidence``, with what is derived already from parts that are the same."""
        changed = {part for part in _PARTS if getattr(evidence, part) is not getattr(self._given, part)}
        kept = Facts(evidence)
        kept._answers = {fact: answer for fact, answer in self._answers.items() if not answer.parts & changed}
        return kept

    def _asked(self, fact: Fact[T]) -> T:
        answer = self._answers.get(fact)
        if answer is None:
            answer = self._answers[fact] = self._derived(fact)
        self._note(answer.parts)
        if answer.error is not None:
            raise answer.error.with_traceback(None)
        self._values[fact] = answer.value
        return cast(T, answer.value)

    def _derived(self, fact: Fact[Any]) -> _Answer:
        own = Facts(self._given)  # what it reads and asks for is noted there
        own.evidence = cast(Evidence, _Watched(self._given, own._note))
        own._answers, own._within = self._answers, (*self._within, fact)
        answer = _Answer()
        try:
            if fact in self._within:
                raise RecursionError(f"it asks for itself, by way of {self._within[-1].name}")
            answer.value = fact.derive(own)
            if isinstance(answer.value, Iterator):
                raise TypeError("it can be read only once; let it return a tuple")
        except GraphLensError as error:
            answer.error = error
        except Exception as error:  # a defect of one fact must not cost the user what does not rest on it
            answer.error = FactError(fact.name, in_words(error))
            answer.error.__cause__ = error
        answer.parts, own._is_open = frozenset(own._parts), False
        return answer

    def _note(self, parts: frozenset[str]) -> None:
        if not self._is_open:
            raise RuntimeError(f"{self._within[-1].name} is derived already: it may ask for nothing more")
        self._parts |= parts


class _Watched:
    """The evidence in the hands of one fact: tells which parts it reads."""

    def __init__(self, evidence: Evidence, note: Callable[[frozenset[str]], None]) -> None:
        self._evidence, self._note = evidence, note

    def __getattr__(self, name: str) -> Any:
        self._note(frozenset({name}) if name in _PARTS else _PARTS)  # what is no part may be made of any
        value = self.__dict__[name] = getattr(self._evidence, name)  # noted once, it is an attribute like any other
        return value
