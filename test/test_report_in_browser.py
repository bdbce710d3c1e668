"""The page of an evaluation as a real browser shows it: nothing fetched, nothing hidden, texts that stand out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chromium
import cv2
import numpy as np
import pytest
from evaluations import EVIL, TIMES, make_evaluation

pytest.importorskip("jinja2", reason="jinja2 is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")
if chromium.FOUND is None:
    pytest.skip("no chromium on PATH", allow_module_level=True)

from drive_seg.labels import DRIVING, Label, LabelSet
from drive_seg.offline.report import write_report
from drive_seg.offline.report_frames import WorstFrames


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    """The page of an evaluation with hostile names, in a browser."""
    folder = tmp_path_factory.mktemp("page")
    worst = WorstFrames(3)
    evaluation = make_evaluation(12, observe=worst.see, name=lambda number: f"{EVIL}{number}", command=EVIL)
    write_report(folder / "report.html", evaluation, worst.frames, TIMES)
    with chromium.Page(folder / "profile") as browser:
        browser.show(1200, 900)
        browser.open((folder / "report.html").as_uri())
        yield browser


class TestInChromium:
    def test_no_errors_and_no_requests(self, page: chromium.Page) -> None:
        assert page.value("document.images.length") == 9
        assert page.complaints == []
        others = [url for url in page.requests if not url.startswith("data:")]
        assert len(others) == 1 and others[0].startswith("file://")

    @pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (360, "light")])
    def test_cards_and_pictures_are_visible(self, page: chromium.Page, width: int, scheme: str) -> None:
        page.show(width, 900, scheme)
        boxes = page.value(
            "[...document.querySelectorAll('#cards .card .value')].map(it => {"
            " const box = it.getBoundingClientRect(), style = getComputedStyle(it), all = it.closest('.card');"
            " return [box.width, box.height, it.scrollWidth <= all.clientWidth, style.visibility, style.opacity] })"
        )
        assert len(boxes) == 7
        for box in boxes:
            assert box[0] > 30 and box[1] > 15
            assert box[2:] == [True, "visible", "1"]
        assert page.value("[...document.images].every(it => it.complete && it.naturalWidth > 0 && it.width > 100)")
        assert page.value("[...document.querySelectorAll('svg')].every(it => it.getBoundingClientRect().height > 60)")
        assert page.value("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_texts_stand_out(self, page: chromium.Page, scheme: str) -> None:
        """Contrast of 4.5 to 1 (WCAG 2, AA) of every text on what lies behind it."""
        page.show(1200, 900, scheme)
        texts = page.value(CONTRASTS)
        assert len(texts) > 150
        weak = [f"{text}: {ink} on {paper}" for text, ink, paper in texts if contrast(ink, paper) < 4.5]
        assert weak == []

    def test_the_schemes_differ(self, page: chromium.Page) -> None:
        brightness = []
        for scheme in ("light", "dark"):
            page.show(1200, 900, scheme)
            shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_GRAYSCALE)
            assert shot.shape == (900, 1200)
            assert shot.std() > 5
            brightness.append(float(np.median(shot)))
        assert brightness[0] > 200 and brightness[1] < 60

    def test_paper_shows_all_columns_dark_on_white(self, page: chromium.Page) -> None:
        """On A4, printed from a browser that is set to dark."""
        page.call("Emulation.setDeviceMetricsOverride", width=718, height=1000, deviceScaleFactor=1, mobile=False)
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        page.call("Emulation.setEmulatedMedia", media="print", features=dark)
        try:
            edges = page.value(
                "[...document.querySelectorAll('th, td, svg')].map(it => it.getBoundingClientRect().right)"
            )
            inks = page.value(CONTRASTS)
        finally:
            page.call("Emulation.setEmulatedMedia", media="", features=[])
        assert max(edges) <= 718
        assert [text for text, ink, _ in inks if contrast(ink, [255, 255, 255]) < 4.5] == []


def test_a_long_name_of_a_class_covers_no_figure(tmp_path: Path) -> None:
    labels = LabelSet((*DRIVING.labels[:-1], Label(5, "<b>caravan_trailer_or_other</b>", True, (255, 140, 0))))
    write_report(tmp_path / "report.html", make_evaluation(3, labels=labels))
    with chromium.Page(tmp_path / "profile") as browser:
        browser.show(1200, 900)
        browser.open((tmp_path / "report.html").as_uri())
        names = "[...document.querySelectorAll('tbody th')]"
        assert browser.value(f"{names}.filter(it => it.scrollWidth > it.clientWidth + 1).map(it => it.innerText)") == []


@pytest.mark.parametrize("width", [1200, 360])
def test_names_of_classes_leave_room_for_their_figures(tmp_path: Path, width: int) -> None:
    """They stay in sight while the figures are scrolled by, and are in the legend of the pictures."""
    names = "object--traffic-sign--information-parking", "chest of drawers, chest, bureau, dresser", "x" * 300
    labels = LabelSet(
        tuple(
            Label(label.id, name, label.thing, label.color)
            for label, name in zip(DRIVING, [*"abc", *names], strict=True)
        )
    )
    worst = WorstFrames(1)
    write_report(tmp_path / "report.html", make_evaluation(3, labels=labels, observe=worst.see), worst.frames)
    with chromium.Page(tmp_path / "profile") as browser:
        browser.show(width, 900)
        browser.open((tmp_path / "report.html").as_uri())
        widths = browser.value("[...document.querySelectorAll('#classes tbody th')].map(it => it.offsetWidth)")
        assert len(widths) == 6 and max(widths) < width / 2
        assert browser.value("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


CONTRASTS = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const pixel = colors => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1) }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), parent = walker.currentNode.parentElement;
    if (!text || parent.closest('style')) continue;
    const behind = [];
    for (let it = parent; it; it = it.parentElement) behind.unshift(getComputedStyle(it).backgroundColor);
    const style = getComputedStyle(parent), ink = parent.closest('svg') ? style.fill : style.color;
    found.push([text.slice(0, 20), pixel([...behind, ink]), pixel(behind)]);
  }
  return found;
})()
"""


def contrast(ink: list[int], paper: list[int]) -> float:
    """By WCAG 2, from two sRGB colours of 0..255."""

    def luminance(color: list[int]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(ink), luminance(paper)))
    return (high + 0.05) / (low + 0.05)
