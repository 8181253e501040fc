"""Memory and time of an analysis of many hosts, as they grow: `make bench`, part `hosts`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import many_hosts

HOSTS = (64, 128, 256)
ON_PAPER = 4_096
REPEATS = 10  # a second and a half of steps, a megabyte, for each host
MOST_BYTES = 1_200_000_000
_MEASURED = (
    "import json, resource, subprocess, sys\n"
    "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
    "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    "peak = used.ru_maxrss * (1 if sys.platform == 'darwin' else 1024)\n"
    "print(json.dumps([used.ru_utime + used.ru_stime, peak]))"
)


def many(folder: Path) -> str:
    """Analyze generated recordings of more and more hosts, one of them slowed, and go on to thousands on paper."""
    lines, measured = [], []
    for hosts in HOSTS:
        place, slow, found = folder / f"hosts-{hosts}", hosts // 3, folder / f"hosts-{hosts}.json"
        written = many_hosts.write(place, hosts, slow, repeats=REPEATS)
        each = (place / "plugins/profile" / many_hosts.RUN / f"{written.names[0]}.xplane.pb").stat().st_size
        cpu_s, peak = _judged(place, found)
        document = json.loads(found.read_text(encoding="utf-8"))
        named = document["replicas"]["slowest"]
        lines.append(
            f"{hosts} hosts of {each / 1e6:.1f} MB each: {cpu_s:.1f} s of processor time, {cpu_s / hosts * 1000:.0f} ms"
            f" each, {peak / 1e6:.0f} MB at the most (goal {MOST_BYTES / 1e6:.0f}), slow host "
            f"{'named' if named == slow else f'NOT named ({named})'}"
        )
        measured.append((hosts, cpu_s, peak))
        shutil.rmtree(place)
    (few, few_s, few_bytes), *_, (most, most_s, most_bytes) = measured
    more_s, more_bytes = ((most_s - few_s) / (most - few), (most_bytes - few_bytes) / (most - few))
    lines.append(
        f"on paper, {ON_PAPER} hosts: {most_s + more_s * (ON_PAPER - most):.0f} s of processor time, "
        f"{(most_bytes + more_bytes * (ON_PAPER - most)) / 1e6:.0f} MB"
    )
    return "\n".join(lines)


def _judged(place: Path, found: Path) -> tuple[float, int]:
    command = [sys.executable, "-m", "graphlens", "analyze", str(place), "-o", str(found)]
    run = subprocess.run([sys.executable, "-c", _MEASURED, *command], check=True, capture_output=True, text=True)
    cpu_s, peak = json.loads(run.stdout)
    return cpu_s, peak
