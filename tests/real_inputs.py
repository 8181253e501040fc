"""Files that others made: the small ones are in `fixtures/real`, the large ones beside the checkout or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PLACES = (REPOSITORY / "fixtures" / "real", REPOSITORY.parent / "shared" / "real")


class RealInputs:
    """All as one folder: `REAL / "gpu_run_metadata"` is where that is, and skips the test where it is nowhere."""

    def __truediv__(self, path: str) -> Path:
        found = next((place / path for place in PLACES if (place / path).exists()), None)
        if found is None:
            pytest.skip(f"{path} is nowhere here: `fixtures/real/README.md` says who publishes it")
        return found


REAL = RealInputs()
