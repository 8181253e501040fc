"""The page in a real browser: no error, no request, works without scripts, and every comfort does what it says."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from graphlens import report
from graphlens.pipeline.result import Analysis
from tests import sample_document, sample_programs, sample_proofs, sample_training

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = find_spec("axe_playwright_python")

SAMPLES = {
    "rich": sample_document.RICH,
    "static": sample_document.STATIC,
    "hostile": sample_document.hostile(),
    "proofs": sample_proofs.TOGETHER,
    "programs": sample_programs.SEVERAL,
    "kinds": sample_programs.BY_TURNS,
    "alarm": sample_programs.ALARM,
    "trained": sample_training.TRAINED,
    "hostile-trained": sample_training.HOSTILE,
}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium executable on this machine"),
]

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The sample reports as files, by name."""
    folder = tmp_path_factory.mktemp("reports")
    for name, document in SAMPLES.items():
        report.write(document, folder / f"{name}.html")
    return {name: (folder / f"{name}.html").as_uri() for name in SAMPLES}


@pytest.fixture
def visit(browser, pages):
    """Open a sample offline; fails at the end if the page had an error or asked for anything but itself.

    ``stored`` is what the page finds in the browser's storage.
    """
    contexts, problems, requests = [], [], []

    def go(name, fragment="", stored=None, **options):
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        if stored:
            context.add_init_script(f"Object.assign(localStorage, {json.dumps(stored)})")
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(pages[name] + fragment)
        return page

    yield go
    for context in contexts:
        context.close()
    assert problems == []
    assert [url for url in requests if url.partition("#")[0] not in pages.values()] == []


@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_runs_without_error_or_request(visit, name):
    page = visit(name)
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("document.querySelectorAll('img, iframe, b').length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_scheme_and_the_switch_is_remembered(visit, scheme):
    page = visit("rich", color_scheme=scheme)
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    assert before == {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 18, 23)"}[scheme]
    page.click("#theme")
    switched = page.evaluate(ground)
    assert switched != before
    # What a page stores is another's once the browser has passed it on: when that is, is not for the page to say.
    stored = page.evaluate("({...localStorage})")
    assert visit("rich", stored=stored, color_scheme=scheme).evaluate(ground) == switched


def test_without_scripts_everything_is_there_and_deep_links_open(visit):
    page = visit("rich", "#finding-GL103-1", java_script_enabled=False)
    assert page.locator("#finding-GL103-1").is_visible()
    assert page.locator("#op-table tbody tr").count() == len(sample_document.RICH.ops)
    assert page.locator(".finding").count() == 4
    assert page.locator("figure svg").first.is_visible()
    for control in ("#theme", "#filter", "#toggle-findings", ".copy"):
        assert not page.locator(control).first.is_visible()


def test_a_deep_link_opens_its_finding(visit):
    page = visit("rich")
    assert not page.locator("#finding-GL602-1").is_visible()
    page.evaluate("location.hash = '#finding-GL602-1'")
    page.wait_for_selector("#finding-GL602-1", state="visible")


def test_links_stay_inside_the_frame_of_a_notebook(browser, tmp_path):
    frame = Analysis(sample_document.RICH)._repr_html_()
    (tmp_path / "notebook.html").write_text(f"<!doctype html><p>the notebook</p>{frame}", "utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((tmp_path / "notebook.html").as_uri())
    report_in_frame = page.frame_locator("iframe")
    report_in_frame.locator("nav a[href='#ops']").click()
    report_in_frame.locator("#op-table a[href='#finding-GL203-1']").first.click()
    assert report_in_frame.locator("#finding-GL203-1").is_visible()
    assert page.frames[1].evaluate("scrollY") > 0
    context.close()


def test_all_findings_open_and_close(visit):
    page = visit("rich")
    page.click("#toggle-findings")
    assert page.locator(".finding[open]").count() == 4
    page.click("#toggle-findings")
    assert page.locator(".finding[open]").count() == 0


def names(page):
    return page.locator("#op-table tbody tr:visible th .type").all_inner_texts()


def test_ops_sort_with_unknown_values_last_both_ways(visit):
    page = visit("rich")
    button = page.get_by_role("button", name="Bytes")
    header = page.locator("th[aria-sort]")
    button.click()
    assert names(page)[0] == "Mul"
    assert header.get_attribute("aria-sort") == "descending"
    assert set(names(page)[-2:]) == {"PrintV2", "Relu6"}
    button.click()
    assert names(page)[0] == "_FusedConv2D"
    assert set(names(page)[-2:]) == {"PrintV2", "Relu6"}
    assert header.get_attribute("aria-sort") == "ascending"


def test_ops_are_filtered_and_a_link_brings_a_hidden_row_back(visit):
    page = visit("rich")
    page.fill("#filter", "print NOT SEEN")
    assert names(page) == ["PrintV2"]
    assert page.locator("#filter-count").inner_text() == "1 of 19"
    page.fill("#filter", f"{sample_document.ROOT}/Print")
    assert names(page) == ["PrintV2"]
    page.evaluate("location.hash = '#op-1'")
    page.wait_for_selector("#op-1", state="visible")
    assert len(names(page)) == 19


def test_copies_sort_by_size_with_unknown_ones_last(visit):
    page = visit("rich")
    sizes = page.locator(".copy-table tbody tr td:nth-child(3)")
    button = page.locator(".copy-table").get_by_role("button", name="Size")
    button.click()
    assert sizes.first.inner_text() == "4.59 MiB"
    button.click()
    assert (sizes.first.inner_text(), sizes.last.inner_text()) == ("16 B", "unknown")


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("fold", ["roofline", "memory"])
def test_a_link_opens_a_folded_drawing(visit, fold, scripts):
    page = visit("rich", f"#{fold}", java_script_enabled=scripts)
    page.wait_for_selector(f"#{fold} svg.plot", state="visible")


@pytest.mark.parametrize("width", [420, 1280])
def test_lanes_are_wide_enough_to_be_read(visit, width):
    page = visit("rich", viewport={"width": width, "height": 800}, java_script_enabled=False)
    boxes = [lane.bounding_box() for lane in page.locator("svg.lane").all()]
    assert len(boxes) == 8
    assert min(box["width"] for box in boxes) >= 150


@pytest.mark.parametrize("width", [390, 1280])
def test_the_numbers_of_a_program_are_seen_without_scrolling(visit, width):
    page = visit("programs", viewport={"width": width, "height": 800}, java_script_enabled=False)
    boxes = [cell.bounding_box() for cell in page.locator("#programs tbody").first.locator("td.n:visible").all()]
    assert len(boxes) >= 3 * 5
    assert max(box["x"] + box["width"] for box in boxes) <= width
    assert page.locator("#programs details tbody tr").count() == 2


def test_on_a_phone_time_and_share_of_an_op_are_seen_beside_its_name(visit):
    page = visit("rich", viewport={"width": 390, "height": 800}, java_script_enabled=False)
    assert page.locator("#op-table thead th").all_inner_texts()[1:3] == ["Self time", "Of step"]
    rows = page.locator("#op-table tbody tr")
    assert rows.count() == 19
    for row in rows.all():
        name, *numbers = (row.locator("th, td").nth(index).bounding_box() for index in range(3))
        assert name["x"] >= 0
        assert max(box["x"] + box["width"] for box in numbers) <= 390


@pytest.mark.parametrize("width", [390, 820, 1120, 1280])
@pytest.mark.parametrize("scripts", [True, False])
def test_every_section_can_be_reached_from_the_navigation_without_scrolling_sideways(visit, width, scripts):
    page = visit("rich", viewport={"width": width, "height": 800}, java_script_enabled=scripts)
    boxes = [link.bounding_box() for link in page.locator("nav a").all()]
    assert len(boxes) == 9
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    bar = page.locator(".bar-top").bounding_box()
    assert all(bar["y"] <= box["y"] and box["y"] + box["height"] <= bar["y"] + bar["height"] for box in boxes)


def test_on_a_phone_figures_of_findings_fit_into_their_frames(visit):
    page = visit("rich", viewport={"width": 390, "height": 800}, java_script_enabled=False)
    frames = page.locator("#findings .canvas:visible")
    assert frames.count() == 1
    assert frames.first.evaluate("frame => frame.scrollWidth <= frame.clientWidth")
    lines = frames.first.locator("text").all()
    assert min(line.bounding_box()["height"] for line in lines) >= 6


def test_findings_come_right_under_the_headline(visit):
    page = visit("programs", viewport={"width": 1280, "height": 800}, java_script_enabled=False)
    tiles, findings = (page.locator(place).bounding_box() for place in (".tiles", "#findings-title"))
    # Between them are what could not be done, the measurement and the environment in one line, and what was fed.
    assert 0 < findings["y"] - tiles["y"] - tiles["height"] <= 210
    assert findings["y"] < 600
    assert not page.locator("#quality").is_visible()


def test_a_tile_opens_the_measurement_without_scripts(visit):
    page = visit("rich", java_script_enabled=False)
    page.click("a.tile[href='#quality']")
    assert page.locator("#quality").is_visible()


def test_an_alarm_is_seen_before_everything_else(visit):
    page = visit("alarm", viewport={"width": 390, "height": 800}, java_script_enabled=False)
    alarm, title = (page.locator(place).bounding_box() for place in (".alarm", "h1"))
    assert alarm["y"] + alarm["height"] <= title["y"] <= 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_sides_of_a_copy_differ_in_colour_shape_and_words(visit, scheme):
    page = visit("rich", color_scheme=scheme)
    sides = page.evaluate(
        """[...document.querySelector('#copies figure').querySelectorAll('.node')].map(node => {
             const outline = node.querySelector('polygon, path');
             const words = [...node.querySelectorAll('text')].map(line => line.textContent);
             return [getComputedStyle(outline).fill, outline.localName, words.at(-1)];
           })"""
    )
    assert len(sides) == 2
    assert all(one != other for one, other in zip(*sides, strict=True))
    assert [words for _, _, words in sides] == ["CPU:0", "CPU:1"]


@pytest.mark.parametrize("name", ["roofline", "memory"])
def test_words_in_a_plot_stay_inside_it(visit, name):
    page = visit("rich", f"#{name}")
    page.wait_for_selector(f"#{name} svg.plot", state="visible")
    outside = page.evaluate(
        """name => { const plot = document.querySelector(`#${name} svg.plot`), frame = plot.getBoundingClientRect();
             return [...plot.querySelectorAll('text')].filter(text => {
               const line = text.getBoundingClientRect();
               return line.left < frame.left || line.right > frame.right
                 || line.top < frame.top || line.bottom > frame.bottom;
             }).map(text => text.textContent); }""",
        name,
    )
    assert outside == []


def test_the_analysis_can_be_saved_from_the_page(visit, tmp_path):
    page = visit("rich")
    with page.expect_download() as download:
        page.click("#save-json")
    download.value.save_as(tmp_path / "a.json")
    report.write(sample_document.RICH, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_sideways(visit, name, width):
    page = visit(name, viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_figure_labels_stay_inside_their_boxes(visit):
    """Graphviz measures with a font of its own; whatever font the browser has must fit as well."""
    page = visit("rich")
    overflow = page.evaluate(
        """[...document.querySelectorAll('figure .node')].filter(node => {
             const box = node.querySelector('polygon, path').getBoundingClientRect();
             return [...node.querySelectorAll('text')].some(text => {
               const line = text.getBoundingClientRect();
               return line.left < box.left || line.right > box.right;
             });
           }).length"""
    )
    assert overflow == 0


def test_printing_shows_what_is_folded(visit):
    page = visit("rich", java_script_enabled=False)
    page.emulate_media(media="print")
    assert page.locator("#finding-GL602-1").bounding_box()["height"] > 50
    assert not page.locator(".bar-top").is_visible()


@pytest.mark.skipif(AXE is None, reason="axe is not installed: pip install axe-playwright-python, as [dev] does")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize(
    "name",
    [
        "rich",
        "programs",
        "trained",
        *(pytest.param(name, marks=pytest.mark.heavy) for name in ("static", "proofs", "kinds", "alarm")),
    ],
)
def test_accessible_by_wcag(browser, pages, name, scheme, width):
    context = browser.new_context(
        offline=True, color_scheme=scheme, bypass_csp=True, viewport={"width": width, "height": 800}
    )
    page = context.new_page()
    page.goto(pages[name])
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.add_script_tag(path=Path(AXE.origin).with_name("axe.min.js"))
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})")
    context.close()
    assert len(found["passes"]) > 20
    assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found["violations"]] == []


# -- a training step ---------------------------------------------------------------------------------------------


def test_a_layer_filters_the_ops_and_without_scripts_leads_to_its_slowest(visit):
    page = visit("trained")
    page.click("#layers a[data-filter='layer:network/second']")
    layers = page.evaluate(
        "[...document.querySelectorAll('#op-table tbody tr')].filter(r => !r.hidden).map(r => r.dataset.layer)"
    )
    assert set(layers) == {"network/second"}
    assert page.input_value("#filter") == "layer:network/second"
    unscripted = visit("trained", java_script_enabled=False)
    unscripted.click("#layers a[data-filter='layer:network/second']")
    assert unscripted.url.endswith("#op-3")


def test_the_layers_are_sorted_by_a_phase_and_what_no_layer_has_stays_last(visit):
    page = visit("trained")
    page.click("#layers th button:text-is('optimizer')")
    first = "document.querySelector('#layers tbody tr th').textContent"
    assert page.evaluate(first).startswith("second")
    assert page.locator("#layers tfoot tr").last.text_content().startswith("All ops of a step")


def test_zooming_widens_the_timeline_and_shows_more_names(visit):
    page = visit("trained", viewport={"width": 1280, "height": 800})
    shown = (
        "[...document.querySelectorAll('#timeline .thread text')].filter(t => t.getBoundingClientRect().width).length"
    )
    width = "document.querySelector('#timeline .threads').getBoundingClientRect().width"
    names, wide = page.evaluate(shown), page.evaluate(width)
    for _ in range(4):
        page.click(".zoom [data-zoom='2']")
    assert page.evaluate(width) == pytest.approx(16 * wide, rel=0.02)
    assert page.evaluate(shown) > names
    for _ in range(6):
        page.click(".zoom [data-zoom='0.5']")
    assert page.evaluate(width) == wide


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phases_differ_in_colour_and_in_pattern(visit, scheme):
    page = visit("trained", color_scheme=scheme)
    fills = page.evaluate(
        "[...document.querySelectorAll('#layers .legend rect')].map(rect => getComputedStyle(rect).fill)"
    )
    assert len(fills) == len(set(fills)) == 7
    grounds = page.evaluate("[...document.querySelectorAll('pattern .pg')].map(rect => getComputedStyle(rect).fill)")
    assert len(set(grounds)) >= 6
    waiting, ground = page.evaluate(
        """[document.querySelector('#timeline .thread .ph-wait'), document.querySelector('#timeline .thread .ph-call')]
             .map(span => getComputedStyle(span).stroke)"""
    )
    assert waiting != ground  # what waits is outlined


def test_words_of_the_timeline_stay_inside_their_spans(visit):
    """The fonts of a browser are not known when names are placed."""
    page = visit("trained", viewport={"width": 390, "height": 800})
    outside = page.evaluate(
        """[...document.querySelectorAll('#timeline .thread text')].filter(text => {
             const line = text.getBoundingClientRect(), span = text.previousElementSibling.getBoundingClientRect();
             return line.width && line.right > span.right;
           }).map(text => text.textContent)"""
    )
    assert outside == []
