"""The process of a script: what its parent is told to end by reaches it, whenever that is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphlens.children import script

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def told_while_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is told to end while it starts another one."""
    start = subprocess.Popen

    def told(_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return start(SLEEPS)

    monkeypatch.setattr(script.subprocess, "Popen", told)


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGTERM to hand on")
@pytest.mark.usefixtures("told_while_starting")
def test_what_is_told_while_the_script_is_being_started_is_told_it_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert script.run(tmp_path, 30, ["train.py"]) == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
