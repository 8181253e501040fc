"""The layers of a step of `fit`, as a script shows them that knows nothing of GraphLens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "fixtures" / "scripts" / "keras_fit.py"
# The widths that the script gives its layers; those of three have names that their scopes do not have.
KERNELS = {"dense": (20, 16), "dense_1": (16, 512), "dense_2": (512, 16), "dense_3": (16, 5)}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    report = tmp_path_factory.mktemp("layers") / "report.json"
    command = "import sys; from graphlens.__main__ import main; sys.exit(main())"
    subprocess.run(
        [sys.executable, "-c", command, "run", "-o", str(report), str(SCRIPT), "mlp"],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return json.loads(report.read_text("utf-8"))  # type: ignore[no-any-return]


def test_phases_and_layers_account_for_the_step(document: Mapping[str, Any]) -> None:
    training = document["training"]
    assert sum(row["ns"] for row in training["phases"]) == training["op_ns"]
    assert training["joined_share"] >= 0.97
    assert training["given_share"] >= 0.95
    assert {row["phase"] for row in training["phases"]} >= {"forward", "loss", "backward", "optimizer", "metrics"}
    assert all(sum(row["phases_ns"].values()) == row["ns"] for row in training["layers"])


def test_each_layer_has_its_own_products(document: Mapping[str, Any]) -> None:
    """Joined by the shapes of their kernels: a layer called `dense_1` stands in a scope that is called otherwise."""
    for layer, (rows, columns) in KERNELS.items():
        ops = [op for op in document["ops"] if (op["layer"] or "").rpartition("/")[2] == layer]
        products = [op["output"] for op in ops if "MatMul" in op["op"] or "MatMul" in (op["executed_as"] or "")]
        assert f"float32[{rows},{columns}]" in products, (layer, products)  # the gradient of its kernel
        updates = [op for op in ops if op["op"] == "AssignSubVariableOp"]
        assert [op["phase"] for op in updates] == ["optimizer"] * 2, layer  # of its kernel and its bias


def test_layers_are_told_with_their_class_and_the_line_that_made_them(document: Mapping[str, Any]) -> None:
    lines = SCRIPT.read_text("utf-8").splitlines()
    for row in document["training"]["layers"]:
        path, _, number = row["source"].rpartition(":")
        assert (row["kind"], Path(path)) == ("Dense", SCRIPT)
        assert "keras.layers.Dense(" in lines[int(number) - 1]


def test_gradients_point_at_what_they_are_gradients_of(document: Mapping[str, Any]) -> None:
    by_name = {op["name"]: op for op in document["ops"]}
    products = [op for op in document["ops"] if op["phase"] == "backward" and "MatMul" in op["op"]]
    assert len(products) == 7  # two for each layer, but none for the input of the first
    for op in products:
        forward = by_name[op["forward"]]
        assert (forward["phase"], forward["layer"]) == ("forward", op["layer"])
