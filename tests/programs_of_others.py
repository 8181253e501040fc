"""Programs as others write them, profiled by TensorFlow itself without a mark of ours, and timed by their own clock.

``python programs_of_others.py FOLDER`` runs all of them; each leaves its profile below ``FOLDER/NAME``, and in
``FOLDER/NAME.json`` the truth that GraphLens is held against.
``python programs_of_others.py serve PORT FOLDER`` is a server.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

CALLS = 8
WIDTH = 512
BATCH = 64  # steps of some ten milliseconds: what Keras does around a call is then a few percent of it
IMAGES = np.random.default_rng(0).random((19 * BATCH, 32, 32, 3), dtype=np.float32)
LABELS = np.random.default_rng(1).integers(0, 10, 19 * BATCH)


class Program:
    """One program: runs under the profiler and says how long its steps took by ``perf_counter``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def profile(self, name: str, run: Callable[[], dict[str, Any]]) -> None:
        tf.profiler.experimental.start(str(self.folder / name))
        try:
            truth = run()
        finally:
            tf.profiler.experimental.stop()
        self.write(name, truth)

    def write(self, name: str, truth: dict[str, Any]) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(truth))


def timed(call: Callable[[], Any]) -> float:
    """Call, read all results, and return how long that took."""
    start_s = time.perf_counter()
    tf.nest.map_structure(lambda tensor: tensor.numpy(), call())
    return (time.perf_counter() - start_s) * 1e9


def between(stamps: list[float]) -> list[float | None]:
    """Return how long each step took by the moments at which they were done; when the first began, no stamp says."""
    return [None, *(later - earlier for earlier, later in pairwise(stamps))]


def calls(call: Callable[[], Any]) -> dict[str, Any]:
    return {"step_ns": [timed(call) for _ in range(CALLS)], "steps": CALLS}


# -- calls of a model that was loaded ------------------------------------------------------------------------------


class Matmuls(tf.Module):
    """Three layers."""

    def __init__(self) -> None:
        self.weights = [tf.Variable(tf.random.normal([WIDTH, WIDTH]) / WIDTH**0.5) for _ in range(3)]

    @tf.function(input_signature=[tf.TensorSpec([None, WIDTH], name="x")])
    def __call__(self, x: Any) -> Any:
        for weight in self.weights:
            x = tf.nn.relu(x @ weight)
        return x


class Compiled(Matmuls):
    """The same, compiled by XLA."""

    @tf.function(input_signature=[tf.TensorSpec([4 * WIDTH, WIDTH], name="x")], jit_compile=True)
    def __call__(self, x: Any) -> Any:
        for weight in self.weights:
            x = tf.nn.gelu(x @ weight)
        return x


class Loop(Matmuls):
    """A While loop, whose iterations are no steps."""

    @tf.function(input_signature=[tf.TensorSpec([None, WIDTH], name="x")])
    def __call__(self, x: Any) -> Any:
        for _ in tf.range(10):
            x = tf.tanh(x @ self.weights[0])
        return x


def loaded(folder: Path, module: tf.Module) -> Any:
    tf.saved_model.save(module, str(folder))
    return tf.saved_model.load(str(folder))


def call_loaded_models(program: Program) -> None:
    x = tf.random.normal([4 * WIDTH, WIDTH])
    for name, module in (("matmuls", Matmuls()), ("jit", Compiled()), ("while", Loop())):
        model = loaded(program.folder / f"{name}_model", module)
        model(x)
        program.profile(name, lambda model=model: calls(lambda: model(x)))
    cnn().export(str(program.folder / "cnn_model"), verbose=False)
    model = tf.saved_model.load(str(program.folder / "cnn_model"))
    images = tf.constant(IMAGES[: 4 * BATCH])
    model.serve(images)
    program.profile("cnn", lambda: calls(lambda: model.serve(images)))


# -- Keras ---------------------------------------------------------------------------------------------------------


def cnn(**compiled: Any) -> Any:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(**{"optimizer": "adam", "loss": loss, "metrics": ["accuracy"], **compiled})
    return model


class Clock(keras.callbacks.Callback):
    """When each batch began and ended, for training and prediction, and for validation apart."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[float] = []
        self.took: list[float] = []
        self.tests: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.began.append(time.perf_counter() * 1e9)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.took.append(time.perf_counter() * 1e9 - self.began[-1])  # a call that finds the end of the data has none

    on_predict_batch_begin = on_train_batch_begin
    on_predict_batch_end = on_train_batch_end

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.test_began = time.perf_counter() * 1e9

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.tests.append(time.perf_counter() * 1e9 - self.test_began)

    def truth(self, steps: int) -> dict[str, Any]:
        between_ns = [later - earlier for earlier, later in pairwise(self.began)]
        return {
            "step_ns": self.took,
            "period_ns": between_ns,
            "test_ns": self.tests,
            "steps": steps,
        }


def fit(program: Program, name: str, model: Any, steps: int, warm: int = 2, **how: Any) -> None:
    clock = Clock()
    given = {"x": IMAGES, "y": LABELS, "batch_size": BATCH, "verbose": 0, **how}
    for _ in range(warm):
        model.fit(**{**given, "epochs": 1})

    def run() -> dict[str, Any]:
        model.fit(**given, callbacks=[clock])
        return clock.truth(steps)

    program.profile(name, run)


class Stamped(keras.Model):
    """A model that says when each step was done, also where several make one call."""

    def __init__(self, **compiled: Any) -> None:
        super().__init__()
        self.net = cnn()
        self.stamps: list[float] = []
        self.compile("adam", self.net.loss, **compiled)

    def call(self, x: Any) -> Any:
        return self.net(x)

    def train_step(self, data: Any) -> Any:
        logs = super().train_step(data)
        return {"loss": tf.ensure_shape(tf.py_function(self.stamp, [logs["loss"]], tf.float32), [])}

    def stamp(self, loss: Any) -> Any:
        self.stamps.append(time.perf_counter() * 1e9)
        return loss


def fit_several_steps(program: Program, name: str, unrolled: bool) -> None:
    model = Stamped(steps_per_execution=8)
    if unrolled:
        model.unrolled_steps_per_execution = 8
    given = {"x": IMAGES[: 16 * BATCH], "y": LABELS[: 16 * BATCH], "batch_size": BATCH, "verbose": 0}
    model.fit(**given)

    def run() -> dict[str, Any]:
        model.stamps.clear()
        model.fit(**given)
        return {"step_ns": [*between(model.stamps[:8]), *between(model.stamps[8:])], "steps": 16}

    program.profile(name, run)


def train_with_keras(program: Program) -> None:
    fit(program, "fit", cnn(), 19, warm=0)
    fit_several_steps(program, "several_steps", unrolled=False)
    fit_several_steps(program, "unrolled", unrolled=True)
    fit(program, "partial_execution", cnn(steps_per_execution=8), 19)
    held_out = (IMAGES[: 6 * BATCH], LABELS[: 6 * BATCH])
    fit(program, "validation", cnn(), 19, validation_data=held_out)
    accumulating = keras.optimizers.Adam(gradient_accumulation_steps=4)
    fit(program, "accumulation", cnn(optimizer=accumulating), 16, x=IMAGES[: 16 * BATCH], y=LABELS[: 16 * BATCH])
    fit(program, "unknown_size", cnn(), 12, x=of_unknown_size(), y=None, batch_size=None, epochs=2)


def of_unknown_size() -> Any:
    def batches() -> Iterator[Any]:
        for start in range(0, 6 * BATCH, BATCH):
            yield IMAGES[start : start + BATCH], LABELS[start : start + BATCH]

    spec = (tf.TensorSpec([BATCH, 32, 32, 3]), tf.TensorSpec([BATCH], tf.int64))
    return tf.data.Dataset.from_generator(batches, output_signature=spec)


def train_under_tensorboard(program: Program) -> None:
    clock = Clock()
    board = keras.callbacks.TensorBoard(str(program.folder / "tensorboard"), profile_batch=(3, 12))
    # The clock comes first: what the other callback does at the end of a batch is none of the step.
    cnn().fit(IMAGES, LABELS, batch_size=BATCH, verbose=0, callbacks=[clock, board])
    truth = clock.truth(10)
    program.write("tensorboard", {**truth, "step_ns": truth["step_ns"][2:12]})


def predict(program: Program) -> None:
    model = cnn()
    images = IMAGES[: 8 * 2 * BATCH]
    model.predict(images[: 2 * BATCH], batch_size=2 * BATCH, verbose=0)
    inner_ns: list[float] = []
    function = model.make_predict_function()

    def clocked(iterator: Any) -> Any:
        start_s = time.perf_counter()
        outputs = function(iterator)
        inner_ns.append((time.perf_counter() - start_s) * 1e9)
        return outputs

    model.predict_function = clocked
    clock = Clock()

    def run() -> dict[str, Any]:
        model.predict(images, batch_size=2 * BATCH, verbose=0, callbacks=[clock])
        return {**clock.truth(8), "step_ns": inner_ns}

    program.profile("predict", run)


# -- loops over a dataset ------------------------------------------------------------------------------------------


def loop_over_datasets(program: Program) -> None:
    weight = tf.Variable(tf.random.normal([WIDTH, WIDTH]) / WIDTH**0.5)
    data = tf.data.Dataset.from_tensor_slices(tf.random.normal([12 * 2 * WIDTH, WIDTH])).batch(2 * WIDTH)
    stamps: list[float] = []

    def stamp(loss: Any) -> Any:
        stamps.append(time.perf_counter() * 1e9)
        return loss

    @tf.function
    def step(x: Any) -> Any:
        for _ in range(8):
            x = tf.tanh(x @ weight)
        loss = tf.reduce_mean(x)
        weight.assign_sub(1e-6 * loss * tf.ones_like(weight))  # the next step has to wait for this one
        return loss

    def stamped(x: Any) -> Any:
        return tf.ensure_shape(tf.py_function(stamp, [step(x)], tf.float32), [])

    @tf.function
    def over_dataset() -> Any:
        total = 0.0
        for x in data:
            total += stamped(x)
        return total

    @tf.function
    def over_iterator() -> Any:
        total = 0.0
        for x in iter(data):
            total += stamped(x)
        return total

    @tf.function
    def left_early() -> Any:
        total, count = 0.0, 0
        for x in data:
            if count >= 9:
                break
            total, count = total + stamped(x), count + 1
        return total

    for name, loop, steps in (
        ("for_x_in_ds", over_dataset, 12),
        ("for_x_in_iter_ds", over_iterator, 12),
        ("for_x_in_ds_break", left_early, 9),
    ):
        loop()

        def run(loop: Any = loop, steps: int = steps) -> dict[str, Any]:
            stamps.clear()
            float(loop())
            return {"step_ns": between(stamps), "steps": steps}

        program.profile(name, run)

    def eagerly() -> dict[str, Any]:
        times_ns = [timed(lambda x=x: step(x)) for x in data]
        return {"step_ns": times_ns, "steps": len(times_ns)}

    eagerly()
    program.profile("eager_loop", eagerly)


def call_session(program: Program) -> None:
    with tf.Graph().as_default():
        # What feeding a large array costs lies outside of every event: what is fed is small.
        row = tf.compat.v1.placeholder(tf.float32, [1, WIDTH])
        x = tf.tile(row, [16 * WIDTH, 1])
        weight = tf.constant(np.random.default_rng(2).random((WIDTH, WIDTH), dtype=np.float32))
        y = tf.reduce_mean(tf.matmul(tf.matmul(x, weight), weight))
        with tf.compat.v1.Session() as session:
            fed = {row: np.ones((1, WIDTH), np.float32)}
            session.run(y, fed)

            def run() -> dict[str, Any]:
                return {"step_ns": [_timed_run(session, y, fed) for _ in range(CALLS)], "steps": CALLS}

            program.profile("session", run)


def _timed_run(session: Any, fetched: Any, fed: Any) -> float:
    start_s = time.perf_counter()
    session.run(fetched, fed)
    return (time.perf_counter() - start_s) * 1e9


# -- a server ------------------------------------------------------------------------------------------------------


def serve(port: int, folder: Path) -> None:
    """Answer requests with a model that was loaded, until the file ``stop`` appears; then write down what they took."""
    parent = os.getppid()
    tf.profiler.experimental.server.start(port)
    model = loaded(folder / "served_model", Matmuls())
    x = tf.random.normal([4 * WIDTH, WIDTH])
    model(x)
    print("ready", flush=True)
    times_ns: list[tuple[float, float]] = []
    while os.getppid() == parent and not (folder / "stop").exists():
        times_ns.append((time.time() * 1e9, timed(lambda: model(x))))
    (folder / "served.json").write_text(json.dumps(times_ns))


def main(folder: Path) -> None:
    program = Program(folder)
    call_loaded_models(program)
    predict(program)
    train_with_keras(program)
    train_under_tensorboard(program)
    loop_over_datasets(program)
    call_session(program)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]))
