"""How much of a step is booked where XLA spends it: `make bench`, on the recordings of `test_compiled_functions.py`."""

from __future__ import annotations

from pathlib import Path

import test_compiled_functions as compiled


def grouped_convolutions(folder: Path) -> str:
    """What else a step of grouped convolutions does is little, unless the machine is busy."""
    place = folder / "compiled"
    if not place.exists():
        place.mkdir()
        compiled.build(place)
    found = {name: compiled.shares(compiled.facts_in(place / name)) for name in ("grouped.parts", "predict")}
    return "\n".join(
        f"grouped convolutions compiled by XLA ({name}): {shares['convolution']:.0%} of the step (goal 60 %), "
        f"executor {shares.get('executor', 0.0):.0%} (goal at most 15 %)"
        for name, shares in found.items()
    )
