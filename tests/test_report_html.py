"""The HTML page as text: policy, escaping, completeness; ``tests/browser`` looks at it with a browser."""

import base64
import gzip
import hashlib
import json
import re
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from graphlens.ir.analysis import Figure, FigureNode
from graphlens.ir.document import to_json
from graphlens.report import html
from graphlens.report.html import breakable, render
from graphlens.report.words import printable
from tests import sample_document


class Page(HTMLParser):
    """An independent reading of the page: its tags, attributes, texts and raw blocks."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.raw, self.text, self.inside = [], {"script": [], "style": []}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in self.raw:
            self.inside = tag
            self.raw[tag].append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.raw[self.inside][-1] += data
        else:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", "".join(self.text))


@pytest.fixture(scope="module")
def rich():
    return Page(render(sample_document.RICH))


@pytest.fixture(scope="module")
def hostile():
    return Page(render(sample_document.hostile()))


def policy_of(page):
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    return policy


def sha(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def test_the_policy_allows_exactly_the_scripts_and_styles_of_the_page(rich):
    policy = policy_of(rich)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    executed = [text for text in rich.raw["script"] if "use strict" in text or "documentElement" in text]
    assert len(executed) == 2
    for text in executed + rich.raw["style"]:
        assert sha(text) in policy
    assert policy.count("sha256-") == 3


def test_nothing_refers_to_another_place(rich, hostile):
    for page in (rich, hostile):
        for _, attributes in page.tags:
            for name in ("src", "href", "xlink:href", "action", "data"):
                assert attributes.get(name, "#").startswith("#")
            assert not [name for name in attributes if name == "style" or name.startswith("on")]
        assert not re.search(r"@import|url\((?!#)", page.raw["style"][0])


def test_identifiers_are_unique_and_links_arrive(rich):
    identifiers = [a["id"] for _, a in rich.tags if "id" in a]
    assert len(set(identifiers)) == len(identifiers)
    links = {a["href"][1:] for tag, a in rich.tags if tag == "a"}
    assert links <= set(identifiers)
    assert "finding-GL203-1" in links


def test_hostile_names_add_no_element(hostile, rich):
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in rich.tags}
    assert len(hostile.raw["script"]) == 3
    assert len(hostile.raw["style"]) == 1
    assert hostile.raw["style"] == rich.raw["style"]
    for name in sample_document.HOSTILE_NAMES:
        assert re.sub(r"\s+", " ", printable(name)) in hostile.words


def test_nothing_in_a_page_steers_what_shows_it():
    page = render(sample_document.hostile())
    assert {char for char in page if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")} <= {"\n"}


@pytest.mark.parametrize(
    "fact",
    [
        "models/mobilenet_v2", "serving_default", "23.6 ms", "22.9 ms – 24.8 ms (p10 – p90), 100 steps, measured",
        "Usable with care", "the step varies by 8.0 %", "+2.3 %", "718 of 730; 6 more timed by the replay only",
        "oneDNN is on",
        "Depthwise convolution", "not attributed", "overhead",
        "GL203", "unfolded-batch-norm", "2.78 ms", "12 % of the step · modelled", "upper bound", "saving unknown",
        "measured self time", "38.5 MFLOP", "147 MiB", "block_16_expand_BN", "constant operands", "unknown",
        "convert_variables_to_constants_v2", "Within tolerance", "Proven", "1.12×", "1.10× – 1.15×", "Refuted",
        "4 more ops of this finding not drawn.",
        "5 devices, 1 of them empty", "nothing ran on this device during the profile",
        "replica 0, 4 steps of 52.8 ms",
        "2 of 4 accelerators did nearly all of the work", "Imbalance 113 %",
        "the layer block_1_relu is pinned to CPU:1", "60 events in the profile, 276 MiB", "device to host · int32[4]",
        "no kernel for this device and dtype", "2 more copies of this group not drawn.", "modelled",
        "What if: GPU:0 (V100)", "Modelled, not measured.", "702 ops",
        "LookupTableFindV2 has no GPU kernel",
        "fixed batch size", "15 → 0", "tf.TensorSpec((8, 224, 224, 3), tf.float32)", "ops inside XLA clusters",
        "121 GFLOP/s and 19.4 GB/s at best here", "1 op without operations or bytes not drawn.",
        "Peak of 36.8 MiB at block_1_relu/Relu6, and 13.5 MiB of weights: an estimate", "Names leave out",
        "20.9 ms of the step, in 11 ops", "explicit device", "4.59 MiB", "not seen",
        "stands for 3 ops as written · model.py:41", "replay",
        "12 transposes, each with a consumer of its layout", "not applicable",
        "the replay took longer than 60 s",
    ],
)  # fmt: skip
def test_the_page_says_every_fact_without_scripts(rich, fact):
    assert fact in rich.words


def test_the_findings_keep_their_rank(rich):
    order = [a["id"] for _, a in rich.tags if a.get("id", "").startswith("finding-")]
    assert order == ["finding-GL203-1", "finding-GL103-1", "finding-GL212-1", "finding-GL602-1"]


def test_the_page_carries_the_analysis_itself(rich):
    (blob,) = [text for text in rich.raw["script"] if re.fullmatch(r"[A-Za-z0-9+/=]+", text)]
    assert gzip.decompress(base64.b64decode(blob)).decode() == to_json(sample_document.RICH)
    assert json.loads(gzip.decompress(base64.b64decode(blob)))["schema_version"] == 1


def test_an_analysis_too_large_to_embed_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr(html, "EMBED_LIMIT_OPS", 3)
    page = Page(render(sample_document.RICH))
    assert "too large to travel inside this page" in page.words
    assert "save-json" not in [a.get("id") for _, a in page.tags]


def test_a_static_analysis_has_no_time_sections():
    page = Page(render(sample_document.STATIC))
    sections = [a["id"] for tag, a in page.tags if tag == "section" and "id" in a]
    assert sections == ["findings", "ops", "rules", "errors"]
    assert "The model was not measured" in page.words
    assert "0 ns" not in page.words


def test_findings_that_save_little_are_folded_and_not_drawn(monkeypatch):
    monkeypatch.setattr(html, "FINDINGS_DRAWN", 1)
    high = sample_document.HIGH
    page = Page(render(replace(sample_document.RICH, findings=(high, high, high))))
    assert "2 more, which would save less" in page.words
    # Of the one finding, for a wide screen and for a narrow one, and of four groups of copies.
    assert sum("graph" in (a.get("class") or "") for tag, a in page.tags if tag == "svg") == 2 + 4
    assert [a["id"] for _, a in page.tags if a.get("id", "").startswith("finding-")] == [
        "finding-GL203-1",
        "finding-GL203-2",
        "finding-GL203-3",
    ]


def test_findings_are_the_first_section_and_what_was_measured_how_well_is_one_line_above_them(rich):
    sections = [a["id"] for tag, a in rich.tags if tag == "section" and "id" in a]
    assert sections[:2] == ["findings", "time"]
    assert rich.words.index("Measurement: Usable with care · 1 reason, 1 note") < rich.words.index(
        "How fixes are proven"
    )
    (folded,) = [at for at, (_, a) in enumerate(rich.tags) if a.get("id") == "quality"]
    assert [tag for tag, _ in rich.tags[:folded]].count("details") == 1
    assert "#quality" in [a.get("href") for _, a in rich.tags]


def test_that_general_findings_stand_behind_is_said_where_there_are_some():
    words = "what is slow in general stands behind it"
    general = replace(sample_document.HIGH, general=True)
    assert words in Page(render(replace(sample_document.RICH, findings=(general,)))).words
    assert words not in Page(render(sample_document.RICH)).words


def test_a_figure_too_wide_for_a_phone_is_drawn_for_it_as_well_and_one_that_fits_is_not():
    drawn = [a for tag, a in Page(render(sample_document.RICH)).tags if tag == "svg" and "graph" in a.get("class", "")]
    wide, phone = (float(attributes["width"]) for attributes in drawn[:2])
    assert phone <= html.PHONE_WIDTH < wide
    small = Figure("executed", (FigureNode("a", "Relu", "subject", 1),), ())
    page = Page(render(replace(sample_document.RICH, findings=(replace(sample_document.HIGH, figure=small),))))
    assert "phone" not in " ".join(a.get("class") or "" for _, a in page.tags).split()


def test_a_skipped_figure_leaves_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHLENS_DOT", str(tmp_path / "missing"))
    page = Page(render(sample_document.RICH))
    assert "figure skipped: Graphviz (missing) failed" in page.words


def test_names_wrap_without_becoming_markup():
    assert breakable("model/layer_<d>/kernel.part") == "model/layer_<wbr>&lt;d&gt;/kernel.<wbr>part"
    assert breakable("short_name") == "short_name"


def test_a_name_of_a_million_letters_without_a_place_to_wrap_is_written_as_it_is() -> None:
    assert breakable("a" * 1_000_000) == "a" * 1_000_000


def test_the_script_stays_small():
    assert (html.ASSETS / "app.js").stat().st_size <= 20_000
    assert len(render(sample_document.RICH)) <= 400_000
