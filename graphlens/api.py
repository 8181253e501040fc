"""The Python interface: analyze a path or a live callable, load an earlier result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphlens import workplace
from graphlens.config import DEFAULT_STEPS, MOST_STEPS, Request
from graphlens.errors import UsageError
from graphlens.pipeline.inside import Profiling
from graphlens.pipeline.result import Analysis

__all__ = ["Analysis", "Profiling", "analyze", "load", "profile"]


def analyze(
    target: Any,
    inputs: Any = None,
    *,
    signature: str | None = None,
    tag: str | None = None,
    imports: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int | None = None,
    warm_up_request: int | None = None,
    steps: int = DEFAULT_STEPS,
    time_budget_s: float | None = None,
    static: bool = False,
    prove: bool = True,
    trust: bool = False,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    assume_device: str | None = None,
    profile: str | os.PathLike[str] | None = None,
    program: str | None = None,
    rtol: float | None = None,
) -> Analysis:
    """Measure a model and say where its step's time goes.

    Parameters
    ----------
    target
        A path or ``"package.module:callable"``, executed in a child process; or a live ``tf.function``,
        ``ConcreteFunction``, Keras model or Python function, traced and executed in this process.
    inputs
        For a path: name -> array, or the path of an ``.npz`` file.  For a live callable: its arguments, as a tuple of
        positional or a mapping of keyword arguments.
    imports
        Python modules to import before the model is opened, as they register its ops or Keras classes.  For paths only.
    shapes, batch
        Shapes of inputs that the model leaves open (for paths only), and the size of open leading dimensions.
    warm_up_request
        Which request of a SavedModel's ``assets.extra/tf_serving_warmup_requests`` to feed, counted from 1; 0 for none,
        ``None`` for the first one that fits.  For paths only.
    prove
        Apply the fixes of findings to copies and measure them.  For paths only.
    assume_device
        Predict the placement on ``"gpu"`` or ``"gpu:NAME"``, which this machine need not have.  For paths only.
    profile
        A profile of the target that was recorded elsewhere (XPlane, its folder, RunMetadata, timeline): the target is
        judged with it and not executed.  A profile may be the target itself, too.  For paths only.
    program
        The program to judge, of several that ran: the ``id`` or the ``name`` of one in ``document.programs``, or a part
        of it that only one has.  ``None``: the one with most time.  For paths only.
    rtol
        How far outputs may be off after a fix, as a part of the largest value of each; ``None``: by type.  For paths
        only.
    static, trust
        Never execute; execute although the graph touches files, network or Python.  For paths only.

    Raises
    ------
    TargetError
        When the target cannot be read.
    UsageError
        When an input cannot be made from what is known; the message names it.  When no program, or more than one, is
        called ``program``; the message lists those that ran.

    Examples
    --------
    >>> import graphlens
    >>> analysis = graphlens.analyze("exported_model", batch=8)  # doctest: +SKIP
    >>> analysis.save("report.html")  # doctest: +SKIP
    >>> [row.id for row in graphlens.analyze("logdir").document.programs]  # doctest: +SKIP
    ['train_step', 'test_step']
    >>> graphlens.analyze("logdir", program="test_step").step.median_ns  # doctest: +SKIP
    """
    from graphlens import pipeline

    _check_steps(steps)
    if not isinstance(target, (str, os.PathLike)):
        _refuse_for_live(
            signature=signature,
            tag=tag,
            imports=imports,
            shapes=shapes,
            warm_up_request=warm_up_request,
            static=static,
            assume_device=assume_device,
            profile=profile,
            program=program,
            rtol=rtol,
        )
        return pipeline.analyze_live(
            target,
            inputs,
            steps=steps,
            batch=batch,
            time_budget_s=time_budget_s,
            select=select,
            ignore=ignore,
        )
    request = Request.of(
        os.fspath(target),
        signature=signature,
        tag=tag,
        imports=tuple(imports),
        shapes={name: tuple(shape) for name, shape in (shapes or {}).items()},
        batch=batch,
        warm_up_request=warm_up_request,
        steps=steps,
        time_budget_s=time_budget_s,
        static=static,
        prove=prove,
        trust=trust,
        select=tuple(select),
        ignore=tuple(ignore),
        assume_device=assume_device,
        profile=os.fspath(profile) if profile is not None else None,
        program=program,
        rtol=rtol,
    )
    return _with_inputs(request, inputs)


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= MOST_STEPS:
        raise UsageError(f"steps must be from 1 to {MOST_STEPS}: beyond that the profiler drops cheap ops")


def _refuse_for_live(**options: Any) -> None:
    """A live callable is executed as it is: what only a file has choices for would be ignored silently."""
    for name, value in options.items():
        if value:
            raise UsageError(f"{name} is for paths only; pass inputs=... to a live callable, or analyze a saved model")


def load(path: str | os.PathLike[str], *, program: str | None = None) -> Analysis:
    """Load an analysis from its ``.json``, or judge a recording or a model as it is; nothing is executed.

    Parameters
    ----------
    program
        The program of a capture to judge, as in ``analyze``.

    Raises
    ------
    TargetError
        When the file is none of these.
    UsageError
        When ``program`` names none, or is given with an analysis, which is of one program.
    """
    from graphlens import pipeline

    if os.fspath(path).endswith(".json"):
        if program is not None:
            raise UsageError("an analysis is of the program that was judged; load its capture to judge another one")
        from graphlens.loaders.files import read_bytes

        return Analysis(_document(read_bytes(Path(path)).decode("utf-8", "replace")))
    return pipeline.analyze(Request.of(os.fspath(path), static=True, program=program))


def profile(
    *,
    steps: int = DEFAULT_STEPS,
    program: str | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Profiling:
    """Record what this process does with TensorFlow within a ``with`` block, and judge it afterwards.

    As with ``graphlens run``, nothing is called on the program's behalf: once the calls of what takes its time are
    steady (a few in a row without tracing), a number of them is recorded.  Functions that ran before the block are
    instantiated anew by their first call in it: without that neither their graph nor their cheap ops are seen.  A
    random op with a seed in a ``tf.function`` begins its sequence again by that; what Keras draws does not.

    Parameters
    ----------
    steps
        How many calls are recorded.
    program
        The program to judge, as in ``analyze``; ``None``: the one with most time.
    select, ignore
        The rules that judge: codes, prefixes or names.

    Returns
    -------
    Profiling
        What the block is entered with.  Its ``analysis`` is an ``Analysis`` once the block was left, also by an error.

    Raises
    ------
    UsageError
        When ``steps`` is out of range.  A block within another one, or in a script under ``graphlens run``, records
        nothing: that is a warning, and an error of its ``analysis``.

    Examples
    --------
    >>> import graphlens
    >>> with graphlens.profile() as recorded:
    ...     pass  # model.fit(...), or a loop that calls a tf.function
    >>> recorded.analysis.save("report.html")
    Traceback (most recent call last):
    graphlens.errors.TargetError: no function and no Session of TensorFlow was called meanwhile: nothing to judge
    """
    _check_steps(steps)
    request = Request.of("", steps=steps, program=program, select=tuple(select), ignore=tuple(ignore))
    return Profiling(request, "graphlens.profile()")


def _document(text: str) -> Any:
    from graphlens.collector import collector_paused
    from graphlens.ir.document import from_json

    with collector_paused():
        return from_json(text)


def _with_inputs(request: Request, inputs: Any) -> Analysis:
    """Run the request with ``inputs`` in a file, which is how they reach the child process."""
    from graphlens import pipeline

    if inputs is None or isinstance(inputs, (str, os.PathLike)):
        return pipeline.analyze(request.but(inputs=os.fspath(inputs) if inputs is not None else None))
    if not isinstance(inputs, Mapping):
        raise UsageError("inputs of a path must be a mapping of names to arrays, or the path of an .npz file")
    import numpy as np

    with workplace.temporary() as folder:
        file = folder / "inputs.npz"
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in inputs.items()}
        np.savez(file, **arrays)
        return pipeline.analyze(request.but(inputs=str(file)))
