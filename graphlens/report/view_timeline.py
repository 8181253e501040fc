"""One step on all its threads: lanes of spans, with the words that fit into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nlargest

from markupsafe import Markup

from graphlens.ir.analysis import Document
from graphlens.ir.training import Timeline, TimelineLane, TimelineSpan
from graphlens.report.lanes import HEIGHT, lane, place, ruler
from graphlens.report.phases import TONES, Key, legend_of, percent, tone_of_span
from graphlens.report.svg import element
from graphlens.units import counted, format_ns, format_share

# What a browser draws without a pause; longer spans come first.
SPANS_DRAWN = 1200
LONGEST_SHOWN = 20
# Width of the drawing that its words are placed for, and of a letter in it, px; zoomed in, more words fit.
LEAST_WIDTH = 900
LETTER = 6.4
ZOOMS = (1, 2, 4, 8, 16)
# A span that is shorter is drawn as wide as this, in percent: it would not be seen.
LEAST_SPAN = 0.12
# An outline around a span that is narrower would leave nothing of it.
THIN = 0.5


@dataclass(frozen=True, slots=True)
class LaneView:
    """One thread or device; ``busy`` is for which share of the picture it did something other than wait."""

    name: str
    busy: str
    drawing: Markup


@dataclass(frozen=True, slots=True)
class SpanView:
    """One of the longest spans, in words."""

    name: str
    lane: str
    what: str
    tone: str
    start: str
    time: str


@dataclass(frozen=True, slots=True)
class TimelineView:
    """A step as lanes under a ruler; ``longest`` says the same in words, ``note`` what is not drawn."""

    total: str
    ruler: Markup
    lanes: tuple[LaneView, ...]
    legend: tuple[Key, ...]
    longest: tuple[SpanView, ...]
    note: str


def timeline_view(document: Document) -> TimelineView | None:
    """Return the picture of a step; ``None`` where there is none."""
    timeline = document.timeline
    if timeline is None or timeline.ns <= 0 or not any(thread.spans for thread in timeline.lanes):
        return None
    drawn = _drawn(timeline)
    omitted = timeline.omitted + sum(len(thread.spans) for thread in timeline.lanes) - sum(map(len, drawn))
    return TimelineView(
        total=format_ns(timeline.ns),
        ruler=ruler(timeline.ns),
        lanes=tuple(
            _lane(thread, spans, timeline.ns)
            for thread, spans in zip(timeline.lanes, drawn, strict=True)
            if thread.spans
        ),
        legend=legend_of({tone_of_span(span) for spans in drawn for span in spans}),
        longest=tuple(_longest(timeline)),
        note=_left_out(omitted),
    )


def _left_out(count: int) -> str:
    verb = "is" if count == 1 else "are"
    return f"{counted(count, 'span')} too short to be seen {verb} left out" if count else ""


def _drawn(timeline: Timeline) -> list[list[TimelineSpan]]:
    """Return the spans of each lane that are drawn, in order: the longest ones of all."""
    spans = [(span.ns, number, at) for number, of in enumerate(timeline.lanes) for at, span in enumerate(of.spans)]
    kept = sorted((number, at) for _, number, at in nlargest(SPANS_DRAWN, spans))
    lanes: list[list[TimelineSpan]] = [[] for _ in timeline.lanes]
    for number, at in kept:
        lanes[number].append(timeline.lanes[number].spans[at])
    return lanes


def _lane(thread: TimelineLane, drawn: Iterable[TimelineSpan], whole_ns: int) -> LaneView:
    busy_ns = sum(span.ns for span in thread.spans if span.kind != "wait")
    busy = f"busy {format_share(min(busy_ns / whole_ns, 1.0))}" if busy_ns else "waits only"
    words = f"{thread.name}: {counted(len(thread.spans), 'span')}, {busy}"
    return LaneView(thread.name, busy, lane(words, [piece for span in drawn for piece in _span(span, whole_ns)]))


def _span(span: TimelineSpan, whole_ns: int) -> Iterator[str]:
    start = min(percent(span.start_ns, whole_ns), 100 - LEAST_SPAN)
    width = max(percent(span.start_ns + span.ns, whole_ns) - start, LEAST_SPAN)
    title = element("title", text=f"{span.name}: {format_ns(span.ns)}, {_what(span)}")
    kind = f"ph-{tone_of_span(span)}{' thin' if width < THIN else ''}"
    yield element("rect", title, class_=kind, x=place(start), width=place(width), height=HEIGHT)
    label = _label(span.name)
    zoom = next((zoom for zoom in ZOOMS if len(label) * LETTER + 8 <= width / 100 * LEAST_WIDTH * zoom), None)
    if zoom is not None:
        yield element("text", text=label, x=place(start), dx=4, y=15, class_=f"z{zoom}")


def _label(name: str) -> str:
    """Return what tells a span: the last part of an op's path."""
    return name.rstrip("/").rpartition("/")[2] or name


def _what(span: TimelineSpan) -> str:
    tone = tone_of_span(span)
    return "op, phase not known" if tone == "unknown" else TONES[tone]


def _longest(timeline: Timeline) -> Iterator[SpanView]:
    spans = [(span, thread) for thread in timeline.lanes for span in thread.spans]
    for span, thread in sorted(spans, key=lambda pair: -pair[0].ns)[:LONGEST_SHOWN]:
        yield SpanView(
            span.name, thread.name, _what(span), tone_of_span(span), format_ns(span.start_ns), format_ns(span.ns)
        )
