"""Make ``docs/report.png``: parts of two reports side by side, as a browser shows them; and ``docs/training.png``.

Run by hand after the page has changed, with playwright and a Chromium (``[dev]``)::

    graphlens analyze MODEL -o model.html
    graphlens run -o training.html train.py
    python docs/picture.py model.html training.html -o docs/report.png --step docs/training.png
"""

from __future__ import annotations

import argparse
import base64
import shutil
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

WIDTH = 1280  # of a window, px
HEIGHT = 2800  # of what is shown of each page, px
STEP_WIDTH = 1100  # of a window that shows a step, px
SHOWN = 652  # width of a page in the picture, px


def main() -> None:
    """Write the picture of the two reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("-o", type=Path, dest="output", default=Path(__file__).with_name("report.png"))
    parser.add_argument("--step", type=Path, help="also show how a step of the training is explained, in this file")
    given = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        parts = [_part(browser, given.model, ""), _part(browser, given.training, "#programs")]
        _beside_each_other(browser, parts, given.output)
        if given.step:
            _explained(browser, given.training, given.step)
        browser.close()


def _part(browser: Browser, page: Path, section: str) -> bytes:
    """Return the upper part of a report, or that from a section on, in the light scheme."""
    shown = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    shown.goto(page.resolve().as_uri())
    shown.wait_for_selector("html[data-ready]")
    top = shown.locator(section).bounding_box() if section else None
    height = shown.evaluate("document.documentElement.scrollHeight")
    start = max(0.0, min(top["y"] - 40, height - HEIGHT)) if top else 0.0
    clip = {"x": 0, "y": start, "width": WIDTH, "height": min(HEIGHT, height - start)}
    return shown.screenshot(full_page=True, clip=clip)


def _explained(browser: Browser, page: Path, output: Path) -> None:
    """Show the period, the layers and the timeline of a training step, without what stands between them."""
    shown = browser.new_page(viewport={"width": STEP_WIDTH, "height": HEIGHT}, color_scheme="light")
    shown.goto(page.resolve().as_uri())
    shown.wait_for_selector("html[data-ready]")
    shown.evaluate(
        """wanted => document.querySelectorAll("main > section, header, footer").forEach(
             part => { part.hidden = !wanted.includes(part.id); })""",
        ["period", "layers", "timeline"],
    )
    shown.locator("main").screenshot(path=output)


def _beside_each_other(browser: Browser, parts: list[bytes], output: Path) -> None:
    images = "".join(f'<img src="data:image/png;base64,{base64.b64encode(part).decode()}">' for part in parts)
    style = f"body{{margin:0;display:flex;gap:12px;background:#d9deeb}}img{{width:{SHOWN}px;align-self:start}}"
    shown = browser.new_page(viewport={"width": 2 * SHOWN + 12, "height": HEIGHT * SHOWN // WIDTH})
    shown.set_content(f"<style>{style}</style>{images}")
    shown.screenshot(path=output)


if __name__ == "__main__":
    main()
