"""Names without the places that functions were called from."""

from __future__ import annotations

import re
from typing import Final

_PLACES: Final = re.compile(
    r"^((Stateful)?PartitionedCall|while|cond|case|ScanDataset|ReduceDataset)(_\d+)?$|^(body|then|else|cond|branch_\d+|_\d+)$"
)


def outer_scope(name: str) -> str:
    """Return the outermost scope that somebody opened around an op, with the place where it is; empty where none was.

    >>> outer_scope("while/body/StatefulPartitionedCall/net_1/dense/MatMul"), outer_scope("PartitionedCall/MatMul")
    ('while/body/StatefulPartitionedCall/net_1', '')
    """
    segments = name.split("/")[:-1]
    for number, part in enumerate(segments):
        if not _PLACES.match(part):
            return "/".join(segments[: number + 1])
    return ""
