"""Whose line a frame is: the framework's by where its packages lie, and not by how a folder of the user is called."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

import graphlens
from graphlens.loaders.sources import is_framework, user_line

INSTALLED = Path(sysconfig.get_paths()["purelib"])
GRAPHLENS = Path(graphlens.__file__).parent


@pytest.mark.parametrize(
    "path",
    [
        "/home/me/keras/train.py",
        "/home/me/tensorflow/models/net.py",
        "/srv/tf_keras/serve.py",
        "/home/me/tensorflow/python/train.py",
        "C:\\src\\keras\\net.py",
        "/opt/env/lib/python3.11/site-packages/mine/net.py",
        "/home/me/keras/env/lib/python3.9/site-packages/keras_hub/layers/attention.py",
        "net.py",
        "<stdin>",
        "<ipython-input-3-abc>",
    ],
)
def test_code_of_the_user(path: str) -> None:
    assert not is_framework(path)


@pytest.mark.parametrize(
    "path",
    [
        str(INSTALLED / "tensorflow" / "__init__.py"),
        str(INSTALLED / "keras" / "layers.py"),
        "/usr/lib/python3/dist-packages/keras/engine/training.py",
        "/opt/env/lib/python3.9/site-packages/tensorflow_estimator/python/estimator/run.py",
        "D:\\env\\Lib\\site-packages\\tf_keras\\engine\\base.py",
        "/home/me/bazel/org_tensorflow/tensorflow/python/framework/ops.py",
        "third_party/py/keras/src/layers/layer.py",
        "/usr/lib/python3.11/threading.py",
        "<frozen runpy>",
        "/tmp/__autograph_generated_filex1.py",
    ],
)
def test_code_of_the_framework(path: str) -> None:
    assert is_framework(path)


def test_the_innermost_line_of_the_user_is_taken() -> None:
    frames = [(str(INSTALLED / "keras" / "src" / "x.py"), 9), ("/me/layer.py", 7), ("/me/train.py", 3)]
    assert user_line(frames) == "/me/layer.py:7"


def test_who_asked_graphlens_did_not_write_the_op() -> None:
    frames = [(str(INSTALLED / "keras" / "src" / "x.py"), 9), (str(GRAPHLENS / "api.py"), 7), ("/me/analyze.py", 3)]
    assert user_line(frames) is None
