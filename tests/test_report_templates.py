"""Compiled templates are kept for the next page, in a folder that is the user's alone or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import pytest

from graphlens.report import html
from graphlens.report.kept_templates import NO_CACHE_VARIABLE, kept_templates
from tests import sample_document


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv(NO_CACHE_VARIABLE, raising=False)
    html._environment.cache_clear()
    yield tmp_path / "caches" / "graphlens"
    html._environment.cache_clear()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The templates that were compiled, in order."""
    names: list[str] = []
    own = jinja2.Environment.compile

    def noted(self: jinja2.Environment, source: str, name: str, *rest: object, **options: object) -> object:
        names.append(name)
        return own(self, source, name, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(jinja2.Environment, "compile", noted)
    return names


def page_of_another_process() -> str:
    html._environment.cache_clear()
    return html.render(sample_document.RICH)


def test_what_one_process_compiled_the_next_one_reads(compiled: list[str]) -> None:
    first = page_of_another_process()
    assert "page.html.j2" in compiled
    compiled.clear()
    assert page_of_another_process() == first
    assert compiled == []


def test_a_damaged_or_a_cut_file_costs_a_compilation(caches: Path, compiled: list[str]) -> None:
    first = page_of_another_process()
    count = len(compiled)
    for at, path in enumerate(sorted(caches.rglob("*.template"))):
        path.write_bytes(b"" if at % 2 else path.read_bytes()[:60])
    compiled.clear()
    assert page_of_another_process() == first
    assert len(compiled) == count


def _by_all(folder: Path) -> None:
    folder.chmod(0o777)


def _a_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def _a_file(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("no folder")


@pytest.mark.parametrize("change", [_by_all, _a_link, _a_file], ids=lambda change: change.__name__.strip("_"))
def test_code_is_read_from_no_folder_in_which_somebody_else_can_write(
    change: Callable[[Path], None], compiled: list[str]
) -> None:
    kept = kept_templates()
    assert kept is not None
    assert kept.folder.stat().st_mode & 0o077 == 0
    page_of_another_process()
    change(kept.folder)
    assert kept_templates() is None
    compiled.clear()
    page_of_another_process()
    assert "page.html.j2" in compiled


def test_a_folder_that_is_gone_or_full_costs_no_page(caches: Path) -> None:
    kept = kept_templates()
    assert kept is not None
    kept.folder.rmdir()
    environment = jinja2.Environment(loader=jinja2.DictLoader({"a": "{{ 1 }}"}), bytecode_cache=kept)
    assert environment.get_template("a").render() == "1"


def test_nothing_is_kept_where_the_user_says_so(monkeypatch: pytest.MonkeyPatch, caches: Path) -> None:
    monkeypatch.setenv(NO_CACHE_VARIABLE, "1")
    page_of_another_process()
    assert not caches.exists()
