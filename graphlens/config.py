"""What the user asks for: one frozen request, made by the command line or by the Python API.

A field that an option of the command line sets carries its description: a new option is a new field, and its name in
the commands that take it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from graphlens import options
from graphlens.options import Option, asked, option_of

DEFAULT_STEPS: Final = 30  # the sampling error of a per-op median is then 2 to 5 %
WARM_UP_CALLS: Final = 2
# After some 90 executions the runtime drops an op that it found to be cheap from the profile.  All calls up to the
# end of the profile stay below this, with a margin for ops that run twice a step.
CALLS_BEFORE_OPS_VANISH: Final = 50
MOST_STEPS: Final = CALLS_BEFORE_OPS_VANISH - WARM_UP_CALLS - 1

# Recording a model takes seconds to a few minutes; a child that is silent for longer hangs.
DEFAULT_TIME_BUDGET_S: Final = 1800.0
DEFAULT_PROOF_BUDGET_S: Final = 60.0
DEFAULT_RERUN_BUDGET_S: Final = 180.0  # each change of a script is a run of it, from the import of TensorFlow on

# Some hundred steps of most programs, and a profile of a few megabytes.
DEFAULT_SERVICE_DURATION_S: Final = 2.0

# `progress(what, done, of)`; `of` is 0 when the amount of work is not known.
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, of: int) -> None:
    """Report progress to nobody."""


MODELS: Final = (
    "a SavedModel folder, a GraphDef (.pb .pbtxt), a MetaGraph, a .keras or .h5 file, or package.module:callable"
)
_TARGETS: Final = (
    f"{MODELS}; or a capture, or a profile (*.xplane.pb, the folder of a recording, a RunMetadata, a timeline or a "
    "trace.json.gz)"
)

GIVE_UP: Final = "give up executing after S seconds"
_GIVE_UP_AND_PROVE: Final = (
    f"{GIVE_UP} (the static report is still written), and spend at most S seconds on proofs "
    f"(default {DEFAULT_PROOF_BUDGET_S:.0f})"
)


def _steps(text: str) -> int:
    steps = options.positive(text)
    if steps > MOST_STEPS:
        raise options.WordError(f"at most {MOST_STEPS}: beyond that the profiler drops cheap ops")
    return steps


_PATHS_OF_PROFILES: Final = "a *.xplane.pb, the folder of a recording, a RunMetadata, a timeline or a trace.json.gz"
_GPUS: Final = "gpu:A100, gpu:H100, gpu:L4, gpu:T4, gpu:V100; gpu alone is an A100"


@dataclass(frozen=True, slots=True)
class Source:
    """The target, and how it is opened and fed.

    Attributes
    ----------
    target
        What the user wrote: a path or ``package.module:callable``; empty where programs elsewhere are recorded and
        their graph is not at hand.
    shapes
        Input name -> shape, for inputs whose shape the model leaves open.
    """

    target: str = asked(Option("", _TARGETS, "TARGET"))
    signature: str | None = asked(
        Option("--signature", "the signature to run (default: serving_default)", "NAME"), None
    )
    tag: str | None = asked(Option("--tag", "the tag of the MetaGraph (default: serve)", "TAG"), None)
    inputs: str | None = asked(Option("--inputs", "one array per input name", "FILE.npz"), None)
    shapes: Mapping[str, tuple[int, ...]] = asked(
        Option(
            "--shape",
            "shape of an input that the model leaves open (NAME= for a scalar); may be given several times",
            "NAME=1,224,224,3",
            read=options.shape,
            write=options.shapes_in_words,
            several=True,
            join=dict,
        ),
        factory=dict,
    )
    imports: tuple[str, ...] = asked(
        Option(
            "--import",
            "a Python module to import before the model is opened, as it registers the model's ops or Keras classes; "
            "may be given several times",
            "MODULE",
            read=options.module,
            write=tuple,
            several=True,
        ),
        (),
    )
    batch: int | None = asked(
        Option("--batch", "size of open leading dimensions (default: 1)", "N", read=options.positive), None
    )
    warm_up_request: int | None = asked(
        Option(
            "--warm-up-request",
            "feed this request of the SavedModel's own file for warming up, counted from 1 "
            "(default: the first one that fits; 0: none)",
            "N",
            read=options.number,
        ),
        None,
    )


@dataclass(frozen=True, slots=True)
class Recording:
    """Whether the target is executed, and how.

    Attributes
    ----------
    time_budget_s
        What recording may take, and again what all proofs may take; ``None`` for the defaults of both.
    trust
        Execute although the graph holds ops that touch files, network or Python.
    static
        Never execute the model.
    profile
        A profile that was recorded elsewhere: the target is judged with it and not run.
    keep_run
        A run of a log folder in which to leave the profile as TensorBoard and XProf read it.
    keep_unplaced
        Keep the graph as TensorFlow hands it to its placer, so that a placement can be predicted elsewhere.
    """

    steps: int = asked(
        Option("--steps", f"profiled steps (default {DEFAULT_STEPS}, at most {MOST_STEPS})", "N", read=_steps),
        DEFAULT_STEPS,
    )
    time_budget_s: float | None = asked(
        Option("--time-budget", _GIVE_UP_AND_PROVE, "S", read=options.seconds, write=options.number_in_words), None
    )
    trust: bool = asked(
        Option("--trust", "execute although the graph touches files, network or Python", sets=True), False
    )
    static: bool = asked(Option("--static", "never execute the model: judge the traced graph alone", sets=True), False)
    profile: str | None = asked(
        Option(
            "--profile", f"judge TARGET with this profile of it instead of running it: {_PATHS_OF_PROFILES}", "PATH"
        ),
        None,
    )
    keep_run: Path | None = None
    keep_unplaced: bool = False


@dataclass(frozen=True, slots=True)
class Judging:
    """What is judged of the evidence, by which rules, and whether the fixes are tried.

    Attributes
    ----------
    program
        The program to judge, of several that ran; ``None``: the one with most time.
    assume_device
        Predict the placement on a device that this machine does not have: ``gpu`` or ``gpu:NAME``.
    prove
        Apply the fixes of findings to copies and measure them.
    rtol
        How far the outputs of a fix may be off, as a part of the largest value of each; ``None``: by their type.
    tries
        Changes of a script that are measured although nothing was found that they would mend.
    """

    program: str | None = asked(
        Option(
            "--program",
            "the program to judge where a recording holds several (default: the one with most time)",
            "NAME",
        ),
        None,
    )
    assume_device: str | None = asked(
        Option(
            "--assume-device",
            "predict where the ops would be placed, and what would be copied, on a GPU that this machine lacks "
            f"({_GPUS})",
            "gpu[:NAME]",
        ),
        None,
    )
    prove: bool = asked(Option("--no-prove", "do not apply and measure the fixes of what is found", sets=False), True)
    rtol: float | None = asked(
        Option(
            "--rtol",
            "accept fixes whose outputs differ by up to X of the largest value of each (default: by type, 1e-5 for "
            "float32, 1e-12 for float64)",
            "X",
            read=options.fraction,
            write=options.number_in_words,
        ),
        None,
    )
    select: tuple[str, ...] = asked(
        Option(
            "--select",
            "only these rules (codes, prefixes or names)",
            "RULES",
            read=options.names,
            write=options.names_in_words,
        ),
        (),
    )
    ignore: tuple[str, ...] = asked(
        Option("--ignore", "leave these rules out", "RULES", read=options.names, write=options.names_in_words), ()
    )
    tries: tuple[str, ...] = asked(
        Option(
            "--try",
            f"also measure the script with this changed: {', '.join(options.CHANGES)} (NAME, or NAME=VALUE as in "
            "steps_per_execution=8); may be given several times",
            "CHANGE",
            read=options.change,
            write=tuple,
            several=True,
        ),
        (),
    )


@dataclass(frozen=True, slots=True)
class Request:
    """One analysis or recording, as asked for."""

    source: Source
    recording: Recording = field(default_factory=Recording)
    judging: Judging = field(default_factory=Judging)

    @classmethod
    def of(cls, target: str, **values: Any) -> Request:
        """Return the request for ``target`` with the fields of its parts by their names; they are unique."""
        return cls(Source(target)).but(**values)

    def but(self, **values: Any) -> Request:
        """Return the request with other values in the fields of its parts."""
        unknown = values.keys() - _PART_OF.keys()
        if unknown:
            raise TypeError(f"a request has no {', '.join(sorted(unknown))}")
        changed = {
            part: replace(getattr(self, part), **{name: values[name] for name in values if _PART_OF[name] == part})
            for part in {_PART_OF[name] for name in values}
        }
        return replace(self, **changed)

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield every field of the parts by its name, with its value."""
        for name, part in _PART_OF.items():
            yield name, getattr(getattr(self, part), name)


_PARTS: Final = {"source": Source, "recording": Recording, "judging": Judging}
_PART_OF: Final = {one.name: part for part, kind in _PARTS.items() for one in fields(kind)}

# Field -> the option that sets it; the others are set by the program.
OPTIONS: Final[Mapping[str, Option]] = {
    one.name: option for kind in _PARTS.values() for one in fields(kind) if (option := option_of(one)) is not None
}
