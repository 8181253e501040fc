"""How a trial process serves its parent: each request gets one answer, and every failure becomes one."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from graphlens.children.channel import requests, reserve_stdout
from graphlens.children.messages import Failure, Refusal
from graphlens.errors import GraphLensError, first_line
from graphlens.tf.importing import import_tensorflow

Commands: TypeAlias = Mapping[type[Any], Callable[..., Any]]


class Refused(Exception):
    """Edits that cannot be applied, and the number of their group where one of several is meant."""

    def __init__(self, why: str, edit: int | None = None) -> None:
        super().__init__(why)
        self.edit = edit


def serve(commands: Commands, session: Any) -> int:
    """Import TensorFlow and serve requests until there are no more; what TensorFlow prints goes to standard error."""
    emit = reserve_stdout()
    failure = import_tensorflow()
    for request in requests(*commands):
        emit(Failure(str(failure)) if failure is not None else answer(commands, session, request))
    return 0


def answer(commands: Commands, session: Any, request: Any) -> Any:
    """Carry out one request with the command for its type, which is called with its fields."""
    arguments = {field.name: getattr(request, field.name) for field in fields(request)}
    try:
        return commands[type(request)](session, **arguments)
    except Refused as refusal:
        return Refusal(str(refusal), refusal.edit)
    except GraphLensError as error:
        return Failure(str(error))
    except Exception as error:  # the last line of defence: the parent shows one line, stderr.txt has the rest
        traceback.print_exc()
        return Failure(f"{type(error).__name__}: {first_line(error)}")
