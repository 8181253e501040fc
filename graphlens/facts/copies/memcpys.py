"""The copies that a device reports itself: joined to their send and receive, else grouped by what they name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphlens.facts.copies.pairs import Pair
from graphlens.ir.run import CopyEvent, Profile


@dataclass(frozen=True, slots=True)
class Joined:
    """Every event once: with its pair (``of_pairs``, in their order), or in a group of events that name the same."""

    of_pairs: Sequence[Sequence[CopyEvent]]
    alone: Sequence[Sequence[CopyEvent]]


def join(profile: Profile, pairs: Sequence[Pair]) -> Joined:
    """Join the memcpy events to ``pairs`` where what they name means exactly one; nothing is guessed."""
    index = _index(pairs)
    of_pairs: list[list[CopyEvent]] = [[] for _ in pairs]
    alone: dict[tuple[object, ...], list[CopyEvent]] = defaultdict(list)
    for event in profile.copies:
        position = _pair_of(event, profile.devices[event.device].name, pairs, index)
        if position is not None:
            of_pairs[position].append(event)
        else:
            key = (event.kind, event.device, event.node, event.op, event.src, event.dst, event.edge)
            alone[key].append(event)
    return Joined(of_pairs, tuple(alone.values()))


def _index(pairs: Iterable[Pair]) -> Mapping[str, list[int]]:
    """List the positions of pairs under every name by which an event may call them, that of the tensor included."""
    index: dict[str, list[int]] = defaultdict(list)
    for position, pair in enumerate(pairs):
        for name in {pair.send.name, pair.receive.name, pair.edge, pair.src} - {""}:
            index[name.partition("@")[0]].append(position)  # the loader marks equal names of two devices with @
    return index


def _pair_of(event: CopyEvent, device: str, pairs: Sequence[Pair], index: Mapping[str, list[int]]) -> int | None:
    for name in filter(None, (event.node, event.edge, event.src)):
        found = [position for position in index.get(name, ()) if _agree(event, device, pairs[position])]
        if len(found) == 1:
            return found[0]
    return None


def _agree(event: CopyEvent, device: str, pair: Pair) -> bool:
    """Whether nothing that both tell differs."""
    return (
        event.kind in (None, pair.kind)
        and device.upper() in pair.accelerators
        and (not event.edge or not pair.edge or event.edge == pair.edge)
        and (not event.src or event.src == pair.src)
        and (not event.dst or not pair.readers or pair.is_read_by(event.dst))
    )
