"""The simulated placement is TensorFlow's own: op for op, and copy for copy, on real models and on random functions.

The oracle is TensorFlow's placer and partitioner, at work on the fake GPU; nothing here was checked on hardware.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fake_gpu.run import BEFORE_PLACER, MODELS, OPTIMIZED, PROFILED_STEPS, Run, run
from placed import Sent, copied, functions, placement, sent

from graphlens.children import ask_placement
from graphlens.facts.placement import (
    ALL_RULES,
    Netlist,
    Placed,
    Rules,
    Transfer,
    assigned_as_dumped,
    assigned_on_gpu,
    devices_of,
    netlist_of,
    place,
    table_for,
    transfers,
)
from graphlens.loaders.graphdef import build_graph, parse_graph_def

pytestmark = pytest.mark.tf

KERNELS = table_for("2.21")
AMPERE = "8.0"  # on it, as on the fake GPU of the tests, convolutions keep their layout
# Other seeds than those with which a rule was ever found.
FEW_SEEDS, MANY_SEEDS = range(1000, 1010), range(2000, 2070)
# What a machine without a GPU cannot know: Keras builds the layer of cuDNN's op where it sees one, and the graph does
# not say that a variable was put on the host on purpose.
ELSEWHERE = {"bilstm_train", "explicit_devices"}
# How often the loop of a model goes round in a step.
ITERATIONS = {"loop": 3, "state": 3, "detection": 2, "recurrent": 6}
# Small ones that need every rule between them.
CONTROLS = ("detection", "explicit_devices", "integers", "train_step", "vectorization")
RULES = [field.name for field in fields(Rules)]


@pytest.fixture(scope="module")
def few_random(fake_gpu: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Random functions for every run of the tests."""
    return run_random(FEW_SEEDS, fake_gpu, tmp_path_factory.mktemp("random"))


def run_random(seeds: range, library: Path, folder: Path) -> dict[str, Run]:
    runs = run(folder, [f"random_{seed}" for seed in seeds], library)
    return {name: item for name, item in runs.items() if item.was_placed}


# -- what the simulator says beside what TensorFlow did ------------------------------------------------------------


@cache
def netlist(run: Run, stage: str, function: str) -> Netlist:
    """A dumped graph, as the simulator takes it."""
    return netlist_of(build_graph(run.graph(stage, function)).main)


real_placement, real_sent = cache(placement), cache(sent)


def misplaced(run: Run, rules: Rules = ALL_RULES) -> tuple[list[str], int]:
    """The ops of a run that the simulator puts elsewhere than TensorFlow, and the number of all ops."""
    wrong, total = [], 0
    for function in functions(run):
        graph = netlist(run, BEFORE_PLACER, function)
        ours = place(graph, KERNELS, assigned_as_dumped(graph), rules)
        real = real_placement(run, function)
        assert set(ours) == set(real)
        wrong += [name for name, item in ours.items() if item.device != real[name]]
        total += len(real)
    return wrong, total


def missent(run: Run, rules: Rules = ALL_RULES) -> tuple[set[Sent], int]:
    """What only the simulator or only TensorFlow sends in a run, and the number of all that TensorFlow sends."""
    wrong, total = set(), 0
    for function in functions(run):
        graph = netlist(run, OPTIMIZED, function)
        ours = [as_sent(item) for item in transfers(graph, devices_of(graph), KERNELS, rules)]
        wrong |= set(ours) ^ real_sent(run, function)
        total += len(real_sent(run, function))
    return wrong, total


def as_sent(item: Transfer) -> Sent:
    is_tensor = item.src_port >= 0
    memories = (item.src_on_host, item.dst_on_host) if is_tensor else (True, True)
    return Sent(item.src, item.src_port, item.src_device, item.dst_device, *memories, frozenset(item.readers))


def check_random(runs: dict[str, Run]) -> str:
    ops = copies = 0
    for name, item in runs.items():
        wrong, total = misplaced(item)
        assert wrong == [], name
        different, count = missent(item)
        assert different == set(), name
        ops, copies = ops + total, copies + count
    return f"{len(runs)} functions, {ops} ops, {copies} transfers: no difference"


# -- models and random functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_op_of_a_model_is_where_tensorflow_puts_it(on_fake_gpu: dict[str, Run], name: str) -> None:
    wrong, total = misplaced(on_fake_gpu[name])
    assert total > 10
    assert wrong == []


@pytest.mark.parametrize("name", MODELS)
def test_every_transfer_of_a_model_is_what_tensorflow_sends(on_fake_gpu: dict[str, Run], name: str) -> None:
    wrong, _ = missent(on_fake_gpu[name])
    assert wrong == set()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ELSEWHERE])
def test_a_machine_without_a_gpu_predicts_the_same(
    on_fake_gpu: dict[str, Run], on_cpu: dict[str, Run], name: str
) -> None:
    """Where arguments live is predicted too: the graph is that of a run on the CPU alone."""
    there, here = (functions(runs[name])[0] for runs in (on_fake_gpu, on_cpu))
    graph = netlist(on_cpu[name], BEFORE_PLACER, here)
    ours = [(op.type, placed.device) for op, placed in zip(graph.ops, predicted(graph).values(), strict=True)]
    # Names of arguments hold numbers that differ from process to process, so ops are compared by their order.
    types = [op.type for op in netlist(on_fake_gpu[name], BEFORE_PLACER, there).ops]
    assert ours == list(zip(types, real_placement(on_fake_gpu[name], there).values(), strict=True))


def predicted(graph: Netlist) -> dict[str, Placed]:
    return place(graph, KERNELS, assigned_on_gpu(graph))


def test_a_machine_without_a_gpu_predicts_every_transfer(
    on_fake_gpu: dict[str, Run], on_cpu: dict[str, Run], tmp_path: Path
) -> None:
    """From the graph before placement on: the placer, then Grappler beside a virtual GPU, then the partitioner."""
    total = 0
    with ask_placement.optimizer(b"", tmp_path) as child:
        for name in (name for name in MODELS if name not in ELSEWHERE):
            before = on_cpu[name].graph(BEFORE_PLACER, functions(on_cpu[name])[0])
            after = optimized(replace(child, graph=tmp_path / f"{name}.pb"), before)
            ours = {as_sent(item) for item in transfers(after, devices_of(after), KERNELS)}
            assert ours == real_sent(on_fake_gpu[name], functions(on_fake_gpu[name])[0]), name
            total += len(ours)
    print(f"{total} transfers predicted without a GPU: no difference")


def optimized(child: ask_placement.Optimizer, before: Any) -> Netlist:
    """What is left of a graph of the CPU after Grappler, which was shown a GPU with the ops placed on it."""
    child.graph.write_bytes(before.SerializeToString())
    placed = predicted(netlist_of(build_graph(before).main))
    data = child.optimized({name: item.device for name, item in placed.items()}, AMPERE)
    return netlist_of(build_graph(parse_graph_def(data, "the optimized graph")).main)


def test_random_functions_are_placed_and_partitioned_alike(few_random: dict[str, Run]) -> None:
    assert len(few_random) >= 8
    print(check_random(few_random))


@pytest.mark.heavy
def test_many_random_functions_are_placed_and_partitioned_alike(fake_gpu: Path, tmp_path: Path) -> None:
    many = run_random(MANY_SEEDS, fake_gpu, tmp_path)
    assert len(many) >= 60
    print(check_random(many))


@pytest.mark.heavy
def test_a_large_training_step_is_placed_and_partitioned_alike(fake_gpu: Path, tmp_path: Path) -> None:
    (large,) = run(tmp_path, ["mobilenet_v2_train"], fake_gpu).values()
    wrong, total = misplaced(large)
    different, sent_in_all = missent(large)
    print(f"MobileNetV2's training step: {total} ops, {sent_in_all} transfers")
    assert total > 10_000
    assert (wrong, different) == ([], set())


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_something_differs(on_fake_gpu: dict[str, Run], few_random: dict[str, Run], rule: str) -> None:
    """The comparison can fail: each rule decides something here."""
    rules = replace(ALL_RULES, **{rule: False})
    runs = [*(on_fake_gpu[name] for name in CONTROLS), *few_random.values()]
    ops = sum(len(misplaced(item, rules)[0]) for item in runs)
    sends = sum(len(missent(item, rules)[0]) for item in runs)
    print(f"without {rule}: {ops} ops and {sends} transfers differ")
    assert ops + sends > 0


# -- copies that ran -----------------------------------------------------------------------------------------------


def executions(model: str, op: str) -> int:
    """How often an op of a model runs in a step: the condition of a loop once more than its body."""
    if "while/" not in op or op.endswith("/while"):
        return 1
    return ITERATIONS[model] + (0 if "/body/" in op else 1)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "dataset"])
def test_copies_that_ran_are_those_predicted_times_executions(on_fake_gpu: dict[str, Run], name: str) -> None:
    model = on_fake_gpu[name]
    graph = netlist(model, OPTIMIZED, functions(model)[0])
    expected: Counter[tuple[str, str]] = Counter()
    for item in transfers(graph, devices_of(graph), KERNELS):
        if item.crosses_bus:
            expected[item.kind, item.src] += executions(name, item.src) * PROFILED_STEPS
    ran = copied(model.profile.read_bytes()).events
    print(name, expected.total(), "copies of edges,", {key: ran[key] for key in ran if not key[1]})
    assert {key: count for key, count in ran.items() if key[1]} == expected


def returned_from_gpu(run: Run) -> int:
    """How many results of the step lie in the memory of the GPU; each is fetched with a copy."""
    graph = netlist(run, OPTIMIZED, functions(run)[0])
    devices = devices_of(graph)
    results = [op for op in graph.ops if op.type == "_Retval" and devices[op.name] == "GPU"]
    return len([op for op in results if op.attrs["T"] not in ("int32", "string")])


# Keras' `train_on_batch` puts its inputs on the device and sums up its metrics outside the step.
@pytest.mark.parametrize("name", [name for name in MODELS if not name.endswith("_train") and name != "dataset"])
def test_every_other_copy_fetches_a_result(on_fake_gpu: dict[str, Run], name: str) -> None:
    ran = copied(on_fake_gpu[name].profile.read_bytes()).events
    assert ran["device-to-host", ""] == returned_from_gpu(on_fake_gpu[name]) * PROFILED_STEPS
    assert ran["host-to-device", ""] == 0
