"""The page of an evaluation by a real parser: its structure, what it must not do, partial truth, pictures, plots."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import resource
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import drive_seg
from evaluations import EVIL, HEIGHT, TIMES, WIDTH, make_evaluation

pytest.importorskip("jinja2", reason="jinja2 is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from drive_seg.errors import DriveSegError, MissingDependency
from drive_seg.labels import DRIVING, Label, LabelSet
from drive_seg.offline import report
from drive_seg.offline.evaluate import Scored
from drive_seg.offline.label_map import LabelMap, MapFile, ScoredClass, bind
from drive_seg.offline.report import render_report, write_report
from drive_seg.offline.report_figures import distribution_plot, percentile_plot, score_plot
from drive_seg.offline.report_frames import PICTURE_WIDTH, FramePicture, WorstFrames
from drive_seg.offline.scoring import Prediction, Scorer, Truth

VOID_TAGS = frozenset({"meta", "link", "img", "br", "wbr", "input", "hr"})


class Node:
    """An element of a parsed page."""

    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Node | str] = []

    @property
    def text(self) -> str:
        return " ".join(" ".join(part if isinstance(part, str) else part.text for part in self.children).split())

    def all(self, tag: str = "", css_class: str = "") -> Iterator[Node]:
        """Descendants in document order."""
        for child in self.children:
            if isinstance(child, Node):
                if tag in ("", child.tag) and css_class in ("", *(child.attributes.get("class") or "").split()):
                    yield child
                yield from child.all(tag, css_class)

    def by_id(self, name: str) -> Node:
        (found,) = (node for node in self.all() if node.attributes.get("id") == name)
        return found


class Tree(HTMLParser):
    """Parses a page and insists that every tag is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = Node("", {})
        self._open = [self.root]
        self.feed(page)
        self.close()
        assert self._open == [self.root], f"left open: {[node.tag for node in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID_TAGS:
            node = self._open[-1].children[-1]
            assert isinstance(node, Node)
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"doubled attribute in {tag}"
        self._open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_TAGS:
            assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def parse(page: str) -> Node:
    return Tree(page).root


def cards(page: Node) -> dict[str, str]:
    """Label -> all that the card says."""
    found = {}
    for card in page.all(css_class="card"):
        (label,) = card.all("dt")
        found[label.text] = " ".join(value.text for value in card.all("dd"))
    return found


def rows(table: Node) -> list[list[str]]:
    return [[cell.text for cell in row.all() if cell.tag in ("td", "th")] for row in table.all("tr")]


@pytest.fixture(scope="module")
def whole() -> tuple[str, Node]:
    """A page with everything on it."""
    worst = WorstFrames(3)
    environment = {"versions": {"drive_seg": "0.1.0"}, "hardware": {"cpu": "Test CPU", "cores": 2, "gpu": []}}
    evaluation = make_evaluation(12, environment=environment, observe=worst.see)
    page = render_report(evaluation, worst.frames, TIMES)
    return page, parse(page)


class TestStructure:
    def test_the_cards_are_the_figures(self, whole: tuple[str, Node]) -> None:
        metrics = make_evaluation(12).metrics
        shown = cards(whole[1])
        assert shown["Frames"] == "12 1 truth unmatched"
        panoptic = metrics["panoptic"]
        for label, group in (("PQ", "all"), ("PQ things", "things"), ("PQ stuff", "stuff")):
            pq, sq, rq = (f"{100 * panoptic[group][key]:.1f}" for key in ("pq", "sq", "rq"))
            assert shown[label] == f"{pq} % SQ {sq} % RQ {rq} %"
        assert shown["mIoU"].startswith(f"{100 * metrics['semantic']['miou']:.1f} %")
        assert shown["Lane F1"].startswith(f"{100 * metrics['lane']['f1']:.1f} % within 3 px")
        assert shown["Throughput"] == "42.0 fps p50 15.2 ms p99 26.1 ms"

    def test_every_class_has_a_row_and_bars_as_long_as_its_scores(self, whole: tuple[str, Node]) -> None:
        metrics = make_evaluation(12).metrics
        table = whole[1].by_id("classes")
        heads, *body = rows(table)
        assert heads == ["class", "IoU", "PQ", "boundary F1", "SQ", "RQ", "AP", "TP", "FP", "FN"]
        assert [row[0].split()[0] for row in body] == [label.name for label in DRIVING]
        vehicle = dict(zip(heads, body[3], strict=True))
        segments = metrics["panoptic"]["per_class"]["vehicle"]
        assert vehicle["PQ"] == f"{100 * segments['pq']:.1f} %"
        assert [vehicle[key] for key in ("TP", "FP", "FN")] == [str(segments[key]) for key in ("tp", "fp", "fn")]
        assert dict(zip(heads, body[1], strict=True))["AP"] == "n/a"
        widths = [
            float(re.findall(r"width:([\d.]+)%", bar.attributes["style"] or "")[0])
            for cell in table.all("div", "iou")
            for bar in cell.all("b")
        ]
        assert widths == pytest.approx([100 * iou for iou in metrics["semantic"]["per_class"].values()], abs=0.01)

    def test_rows_of_the_confusion_matrix_come_to_100(self, whole: tuple[str, Node]) -> None:
        matrix = make_evaluation(12).metrics["semantic"]["confusion"]
        heads, *body = rows(whole[1].by_id("confusion"))
        assert heads[1:] == [*(label.name for label in DRIVING), "unlabelled", "pixels"]
        for row, counts in zip(body, matrix, strict=True):
            shares = [0.0 if text == "<0.1" else float(text) for text in row[1:-1]]
            assert shares == pytest.approx([100 * count / sum(counts) for count in counts], abs=0.06)
            assert row[-1] == f"{sum(counts):,}"

    def test_latency_and_provenance(self, whole: tuple[str, Node]) -> None:
        _, page = whole
        assert rows(page.by_id("latency"))[1:] == [
            ["inference", "11.25", "14.50", "20.12", "31.00"],
            ["processing", "15.25", "19.50", "26.12", "40.00"],
        ]
        assert page.by_id("command").text == "drive_seg evaluate drive.mcap -o report"
        facts = dict(rows(page.by_id("facts")))
        assert facts["versions · drive_seg"] == "0.1.0" and facts["hardware · cpu"] == "Test CPU"
        assert len(list(page.all("svg"))) == 3

    def test_the_worst_frames_are_shown_worst_first(self, whole: tuple[str, Node]) -> None:
        evaluation = make_evaluation(12)
        expected = sorted((frame.pq, frame.frame) for frame in evaluation.frames)[:3]
        articles = list(whole[1].all("article"))
        assert [next(article.all("h3")).text for article in articles] == [name for _, name in expected]
        scores = [next(article.all(css_class="score")).text for article in articles]
        assert scores == [f"PQ {100 * pq:.1f} %" for pq, _ in expected]
        for article in articles:
            captions = [figure.text for figure in article.all("figcaption")]
            assert captions == ["truth", "prediction", "wrong pixels"]
            for picture in article.all("img"):
                prefix, _, data = (picture.attributes["src"] or "").partition(",")
                assert prefix == "data:image/jpeg;base64"
                jpeg = np.frombuffer(base64.b64decode(data, validate=True), np.uint8)
                assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape == (HEIGHT, WIDTH, 3)

    def test_it_is_accessible(self, whole: tuple[str, Node]) -> None:
        _, page = whole
        assert next(page.all("html")).attributes["lang"] == "en"
        assert "width=device-width" in str([node.attributes for node in page.all("meta")])
        assert all(picture.attributes.get("alt") for picture in page.all("img"))
        assert len(list(page.all("h1"))) == 1
        ids = [node.attributes["id"] for node in page.all() if "id" in node.attributes]
        assert len(ids) == len(set(ids))
        labelled = {node.attributes["aria-labelledby"] for node in page.all() if "aria-labelledby" in node.attributes}
        assert labelled <= set(ids)
        for table in page.all("table"):
            assert all(cell.attributes.get("scope") in ("row", "col") for cell in table.all("th"))
        for svg in page.all("svg"):
            assert svg.attributes["aria-hidden"] == "true"
        for scroll in page.all(css_class="scroll"):
            assert scroll.attributes.get("tabindex") == "0" and scroll.attributes.get("role")

    def test_equal_evaluations_give_equal_pages(self, whole: tuple[str, Node]) -> None:
        worst = WorstFrames(3)
        environment = {"versions": {"drive_seg": "0.1.0"}, "hardware": {"cpu": "Test CPU", "cores": 2, "gpu": []}}
        evaluation = make_evaluation(12, environment=environment, observe=worst.see)
        assert render_report(evaluation, worst.frames, TIMES) == whole[0]


def references(page: Node) -> list[str]:
    """Whatever makes a browser fetch something."""
    fetching = ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background")
    found = [str(node.attributes[name]) for node in page.all() for name in fetching if name in node.attributes]
    styles = [node.text for node in page.all("style")]
    styles += [str(node.attributes["style"]) for node in page.all() if "style" in node.attributes]
    return found + [
        url for style in styles for url in re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", style) for url in url if url
    ]


class TestSafety:
    def test_nothing_is_fetched(self, whole: tuple[str, Node]) -> None:
        found = references(whole[1])
        assert len(found) > 9
        assert [url for url in found if not url.strip("'\"").startswith(("data:", "#"))] == []

    def test_nothing_may_run_or_be_fetched(self, whole: tuple[str, Node]) -> None:
        _, page = whole
        assert list(page.all("script")) == []
        assert [name for node in page.all() for name in node.attributes if name.startswith("on")] == []
        (policy,) = (node for node in page.all("meta") if "Content-Security-Policy" in node.attributes.values())
        assert policy.attributes["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

    def test_names_are_text_wherever_they_come_from(self) -> None:
        worst = WorstFrames(2)
        labels = LabelSet((*DRIVING.labels[:5], Label(5, EVIL, True, (1, 2, 3))))
        evaluation = make_evaluation(
            4,
            labels=labels,
            name=lambda number: f"{EVIL}{number}",
            latency={EVIL: {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0}},
            environment={EVIL: {EVIL: EVIL}, "model": EVIL, "source": EVIL},
            command=EVIL,
            observe=worst.see,
        )
        page = parse(render_report(evaluation, worst.frames, {EVIL: [1.0, 2.0]}))
        assert list(page.all("script")) == []
        assert {picture.attributes["src"][:5] for picture in page.all("img") if picture.attributes["src"]} == {"data:"}
        assert [name for node in page.all() for name in node.attributes if name.startswith("on")] == []
        assert page.by_id("command").text == EVIL
        assert {article.text.split("1</h3>")[0] for article in page.all("h3")} <= {f"{EVIL}{n}" for n in range(4)}
        drawn = [text.text for svg in page.all("svg") for text in svg.all("text")]
        assert [text for text in drawn if text.endswith("…")] == [EVIL[:23] + "…"] * 2


class TestPartialTruth:
    def test_without_instances_the_cards_say_so(self) -> None:
        worst = WorstFrames(1)
        page = parse(render_report(make_evaluation(5, instances=False, observe=worst.see), worst.frames))
        shown = cards(page)
        assert shown["PQ things"] == "n/a truth without instances"
        assert shown["PQ"].endswith("of stuff only")
        assert shown["Instance AP"].startswith("n/a")
        assert not shown["mIoU"].startswith("n/a")
        vehicle = rows(page.by_id("classes"))[4]
        assert vehicle[2] == "n/a" and vehicle[-3:] == ["n/a"] * 3 and vehicle[1].endswith("%")
        assert next(page.all(css_class="score")).text.startswith("mIoU ")

    def test_without_pipeline_there_is_no_latency(self) -> None:
        page = parse(render_report(make_evaluation(5, latency={})))
        assert cards(page)["Throughput"] == "n/a predictions from files"
        assert "Latency" not in [head.text for head in page.all("h2")]
        assert "Worst frames" not in [head.text for head in page.all("h2")]

    @pytest.mark.parametrize("missing", ["panoptic", "semantic", "boundary", "lane", "instance", "temporal", "fps"])
    def test_any_part_may_be_missing(self, missing: str) -> None:
        evaluation = make_evaluation(3)
        partial = dataclasses.replace(evaluation, metrics={**evaluation.metrics, missing: None})
        assert any(text.startswith("n/a") for text in cards(parse(render_report(partial))).values())

    @pytest.mark.parametrize(("count", "said"), [(1, "1 pair of frames"), (12345, "12,345 pairs of frames")])
    def test_counts_are_words_and_their_thousands_apart(self, count: int, said: str) -> None:
        evaluation = make_evaluation(3)
        temporal = {**evaluation.metrics["temporal"], "pairs": count}
        page = render_report(dataclasses.replace(evaluation, metrics={**evaluation.metrics, "temporal": temporal}))
        assert cards(parse(page))["Flicker"].endswith(f", {said}")

    def test_one_frame_has_no_curve(self) -> None:
        page = parse(render_report(make_evaluation(1)))
        assert "Frame by frame" not in [head.text for head in page.all("h2")]


def picture_of(
    truth: np.ndarray,
    found: np.ndarray,
    image: np.ndarray | None = None,
    label_map: LabelMap | None = None,
) -> FramePicture:
    """What the report shows of a frame with these panoptic ids."""
    label_map = label_map or LabelMap.identity(DRIVING)
    pair = (Truth(truth), Prediction(found))
    worst = WorstFrames(1)
    worst.see(Scored(Scorer(label_map).score("a", 0, *pair, image), *pair, label_map, image))
    (picture,) = worst.frames
    return picture


class TestPictures:
    def test_the_worst_are_kept_whatever_the_order_and_the_chunks(self) -> None:
        seen: list[Any] = []
        evaluation = make_evaluation(10, observe=seen.append)
        together, first, second = WorstFrames(4), WorstFrames(4), WorstFrames(4)
        for number, scored in enumerate(reversed(seen)):
            together.see(scored)
            (first if number % 3 else second).see(scored)
        first += second
        expected = sorted((frame.pq, frame.frame) for frame in evaluation.frames)[:4]
        assert [(kept.score, kept.name) for kept in together.frames] == expected
        assert first.frames == together.frames

    def test_keeping_none(self) -> None:
        none = WorstFrames(0)
        make_evaluation(3, observe=none.see)
        assert none.frames == ()
        with pytest.raises(ValueError, match="keep must be >= 0"):
            WorstFrames(-1)

    def test_wrong_pixels_are_red_and_counted(self) -> None:
        truth = np.zeros((40, 60), np.uint16)
        truth[:, 50:] = 65535
        found = truth.copy()
        found[:10, :50] = 1
        grey = np.full((40, 60, 3), 128, np.uint8)
        drawn = picture_of(truth, found, grey)
        assert drawn.wrong == pytest.approx(10 * 50 / (40 * 50))
        errors = cv2.imdecode(np.frombuffer(drawn.errors, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        red = errors[..., 0] - errors[..., 1] > 100
        assert red[2:8, 2:48].all() and not red[14:, :].any() and not red[:, 54:].any()
        assert errors[30, 56].max() < errors[30, 20].max()

    def test_a_label_map_may_begin_with_things(self) -> None:
        """Their scored class is 0: as panoptic ids, its objects would be pixels of the classes 1, 2, ..."""
        truth = np.zeros((40, 60), np.uint16)
        truth[:10, :20], truth[:10, 30:50], truth[20:, 40:] = 3001, 3002, 5001
        found = truth.copy()
        found[:10, :20], found[:10, 30:50] = 3002, 3001
        found[30:, :30] = 3003
        scored = {"vehicle": ["vehicle"], "cyclist": ["cyclist"], "pedestrian": ["pedestrian"]}
        scored |= {"road": ["road"], "rest": ["background", "lane_marking"]}
        rows = [ScoredClass(name, tuple(members), tuple(members)) for name, members in scored.items()]
        classes = {label.name: label.id for label in DRIVING}
        first, last = (
            picture_of(truth, found, label_map=bind(MapFile("map", tuple(order)), DRIVING, classes))
            for order in (rows, rows[::-1])
        )
        assert first.wrong == last.wrong == pytest.approx(300 / 2400)
        assert (first.truth, first.prediction, first.errors) == (last.truth, last.prediction, last.errors)

    def test_wrong_pixels_stand_out_by_brightness_alone(self) -> None:
        truth = np.zeros((40, 60), np.uint16)
        found = truth.copy()
        found[:10] = 1
        drawn = picture_of(truth, found, np.full((40, 60, 3), 128, np.uint8))
        errors = cv2.imdecode(np.frombuffer(drawn.errors, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        wrong, right = (np.dot((errors[y, 30] / 255) ** 2.2, (0.2126, 0.7152, 0.0722)) for y in (5, 30))
        assert (wrong + 0.05) / (right + 0.05) > 3

    def test_large_images_are_made_small(self) -> None:
        truth = np.full((720, 1280), 1, np.uint16)
        drawn = picture_of(truth, truth)
        assert drawn.size == (PICTURE_WIDTH, 360)
        assert cv2.imdecode(np.frombuffer(drawn.truth, np.uint8), cv2.IMREAD_COLOR).shape == (360, PICTURE_WIDTH, 3)


class TestPlots:
    def test_colours_are_the_pages(self) -> None:
        for svg in (
            percentile_plot({"a": dict.fromkeys(("p50", "p95", "p99", "max"), 0.0)}),
            score_plot({"PQ": [0, 1]}),
        ):
            colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
            assert {colour for colour in colours if not colour.startswith("var(--")} <= {"none"}

    def test_neighbouring_curves_differ_by_more_than_colour(self) -> None:
        svg = distribution_plot({name: [1.0, 2.0, 3.0] for name in ("decode", "preprocess", "inference", "publish")})
        curves = {style for style in re.findall(r'style="([^"]*)"', svg) if "var(--series-" in style}
        assert len(curves) == len({re.sub(r"series-\d", "", style) for style in curves}) == 4

    def test_long_runs_make_no_long_pages(self) -> None:
        times = list(np.random.default_rng(0).lognormal(3, 0.3, 100_000))
        assert len(distribution_plot({"inference": times})) < 1.5 * len(distribution_plot({"inference": times[:200]}))
        assert len(score_plot({"PQ": list(np.linspace(0, 1, 100_000))})) < 60_000

    def test_the_curve_is_the_distribution(self) -> None:
        from drive_seg.offline.report_figures import _steps

        milliseconds, share = _steps(np.array([1.0, 2.0, 4.0, 8.0]))
        assert milliseconds.tolist() == [1.0, 1.0, 2.0, 4.0, 8.0]
        assert share.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


class TestWriting:
    def test_the_template_is_in_the_package(self) -> None:
        folder = Path(report.__file__).parent / "templates"
        assert (folder / report.TEMPLATE).is_file()

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DriveSegError, match="cannot write"):
            write_report(tmp_path / "file" / "report.html", make_evaluation(1))

    def test_half_a_page_is_not_left_for_a_whole_one(self, tmp_path: Path) -> None:
        render_report(make_evaluation())  # matplotlib's own files are there now
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        try:
            with pytest.raises(DriveSegError, match="cannot write"):
                write_report(tmp_path / "report.html", make_evaluation())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(tmp_path.iterdir())

    def test_a_frame_whose_name_is_no_utf_8(self, tmp_path: Path) -> None:
        worst = WorstFrames(1)
        evaluation = make_evaluation(1, observe=worst.see)
        worst.rename(lambda _: os.fsdecode(b"caf\xe9"))
        write_report(tmp_path / "report.html", evaluation, worst.frames)
        assert "caf?" in parse((tmp_path / "report.html").read_text(encoding="utf-8")).text

    @pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
    def test_a_missing_package_is_named_before_the_work(self, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
        real = report.importlib.util.find_spec
        monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None if name == package else real(name))
        with pytest.raises(MissingDependency, match=rf"'{package}'.* -m pip install .*{package}"):
            report.require_report_packages()

    def test_evaluate_writes_it(self, tmp_path: Path, model: Path) -> None:
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        given = ("--model", model, "--backend", "onnxruntime", "-o", tmp_path / "out", "--json")
        drive_seg("evaluate", "sim", "--frames", 3, "--worst", 2, *given)
        page = parse((tmp_path / "out/report.html").read_text(encoding="utf-8"))
        metrics = json.loads((tmp_path / "out/metrics.json").read_text())
        assert cards(page)["mIoU"].startswith(f"{100 * metrics['semantic']['miou']:.1f} %")
        assert page.by_id("command").text == metrics["command"]
        assert len(list(page.all("article"))) == 2
        assert len(list(page.all("svg"))) == 3
