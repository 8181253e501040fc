"""The words that reports use for grades, origins, verdicts and kinds, and the shortening of names."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

# Kinds of targets that have a name in TensorFlow's own spelling; the others read well as they are.
KINDS: Mapping[str, str] = {
    "saved_model": "SavedModel",
    "graph_def": "GraphDef",
    "meta_graph": "MetaGraph",
    "keras": "Keras model",
    "service": "running programs",
    "xplane": "profile (XPlane)",
    "run_metadata": "profile (RunMetadata)",
    "timeline": "profile (timeline)",
}

# Kinds of targets that do not say which program they are about.
RECORDINGS: frozenset[str] = frozenset({"service", "xplane", "run_metadata", "timeline"})

GRADES: Mapping[str, str] = {
    "good": "Trustworthy",
    "fair": "Usable with care",
    "poor": "Not to be relied on",
    "none": "Nothing was measured",
}

# What is said instead of a grade's words where the numbers of a measurement exclude each other.
CONTRADICTS = "Contradicts itself"
# And where judging it failed.
NOT_KNOWN = "Not known"

SAVING_ORIGINS: Mapping[str, str] = {
    "measured": "measured",
    "modelled": "modelled",
    "bound": "upper bound",
    "unknown": "unknown",
}

SAVING_EXPLAINED: Mapping[str, str] = {
    "measured": "The saving is measured: the fix was applied to a copy and timed.",
    "modelled": "The saving is modelled from the measured time of the ops that the fix removes.",
    "bound": "The saving is an upper bound: the fix cannot give more than this.",
    "unknown": "The saving is unknown: nothing was measured that would tell it.",
}

SAFETY: Mapping[str, str] = {
    "exact": "Exact: the outputs stay the same, bit for bit.",
    "tolerance": "Within tolerance: the outputs change by rounding only.",
    "manual": "By hand: a person has to decide and check.",
}

VERDICTS: Mapping[str, str] = {
    "proven": "Proven",
    "refuted": "Refuted",
    "inconclusive": "Inconclusive",
    "changes-numbers": "Faster, changes numbers",
    "failed": "Fix not usable",
    "not-run": "Not run",
}

LEDGER_KINDS: Mapping[str, str] = {"op": "ops", "overhead": "overhead", "unattributed": "not attributed"}

RULE_STATUSES: Mapping[str, str] = {
    "found": "found",
    "passed": "passed",
    "not-applicable": "not applicable",
    "error": "error",
}

NOT_SEEN = "not seen"


def shorten(name: str, length: int, gap: str = "...") -> str:
    """Shorten ``name`` in the middle to ``length`` characters; its end, which tells ops apart, keeps more.

    >>> shorten("model/block_1/conv/Conv2D", 16)
    'mode.../Conv2D'
    """
    if len(name) <= length:
        return name
    room = length - len(gap)
    head = room // 3
    tail = name[-(room - head) :]
    # A path is cut at a slash where that loses little.
    cut = tail.find("/")
    return name[:head] + gap + (tail[cut:] if 0 <= cut <= len(tail) // 2 else tail)


def file_and_line(source: str | None) -> str:
    """Return ``file:line`` without the folders; what is not known is empty.

    >>> file_and_line("/home/me/train.py:41"), file_and_line(None)
    ('train.py:41', '')
    """
    return (source or "").replace("\\", "/").rpartition("/")[2]


def printable(text: str, kept: str = "") -> str:
    """Replace control characters and those that reorder text, so that a name cannot steer terminal or page.

    Line breaks and tabulators become spaces, except for the characters in ``kept``.

    >>> printable("a\\x1b[31mb"), printable("two\\nlines"), printable("two\\nlines", kept="\\n")
    ('a�[31mb', 'two lines', 'two\\nlines')
    """
    if text.isprintable():
        return text
    return "".join(char if char in kept else _shown(char) for char in text)


def _shown(char: str) -> str:
    if char in "\n\r\t":
        return " "
    return "�" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char


def shared_scope(names: Sequence[str]) -> str:
    """Return the scopes that all names start with, the last slash included.

    >>> shared_scope(["a/b/c", "a/b/d/e"]), shared_scope(["a/b", "c"])
    ('a/b/', '')
    """
    shared = ""
    for parts in zip(*(name.split("/")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared += parts[0] + "/"
    return shared
