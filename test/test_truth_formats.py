"""Ground truth as data sets have it, 4x6 pixels written as their documentation says, and maps of its classes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from recordings import put

from drive_seg.errors import ConfigError, SourceError
from drive_seg.labels import DRIVING, Label, LabelSet
from drive_seg.offline.evaluate import label_map_for
from drive_seg.offline.label_map import bind, load_map
from drive_seg.offline.scoring import Prediction, Scorer, Truth
from drive_seg.offline.truth import open_truth
from drive_seg.offline.truth_files import open_folder


def scored(folder: Path, kind: str, stem: str) -> tuple[np.ndarray, Any, Any]:
    """The names of the scored classes per pixel, the truth and its source."""
    from drive_seg.offline.scoring import tables_of

    source = open_folder(folder, DRIVING, kind)
    truth = source.find(stem, 0)
    assert truth is not None
    label_map = label_map_for(source, DRIVING)
    names = np.array([label.name for label in label_map.labels] + ["void"] * (256 - len(label_map.labels)))
    return names[tables_of(label_map, truth)[0][truth.map]], truth, source


def test_cityscapes(tmp_path: Path) -> None:
    ids = [[7, 26001, 26002, 26], [24001, 25000, 3, 33001]]
    put(tmp_path / "val/bonn/bonn_000001_000019_gtFine_instanceIds.png", ids, np.uint16)
    put(tmp_path / "val/bonn/bonn_000001_000019_gtFine_labelIds.png", np.zeros((2, 4)))
    names, truth, source = scored(tmp_path, "auto", "bonn_000001_000019_leftImg8bit")
    assert names.tolist() == [
        ["road_or_marking", "vehicle", "vehicle", "vehicle"],
        ["pedestrian", "cyclist", "void", "void"],
    ]
    assert truth.crowds == (26,) and source.instances


def test_groups_of_every_kind_of_thing_are_crowds(tmp_path: Path) -> None:
    """Those that Cityscapes tells apart: person to bicycle."""
    ids = [[*range(7, 34)]]
    put(tmp_path / "aachen_000000_000019_gtFine_instanceIds.png", ids, np.uint16)
    truth = open_truth(str(tmp_path), DRIVING).find("aachen_000000_000019_leftImg8bit", 0)
    assert truth is not None and truth.crowds == tuple(range(24, 34))


def test_one_city_of_cityscapes_has_polygons_beside_its_masks(tmp_path: Path) -> None:
    put(tmp_path / "bonn_000001_000019_gtFine_labelIds.png", [[7, 26]])
    (tmp_path / "bonn_000001_000019_gtFine_polygons.json").write_text('{"imgHeight": 1, "imgWidth": 2, "objects": []}')
    names, _, source = scored(tmp_path, "auto", "bonn_000001_000019_leftImg8bit")
    assert names.tolist() == [["road_or_marking", "vehicle"]] and source.label_map == "cityscapes"


def test_cityscapes_without_instances(tmp_path: Path) -> None:
    put(tmp_path / "bonn_000001_000019_gtFine_labelIds.png", [[7, 26, 0, 23]])
    names, _, source = scored(tmp_path, "cityscapes", "bonn_000001_000019_leftImg8bit")
    assert names.tolist() == [["road_or_marking", "vehicle", "void", "background"]] and not source.instances


def test_kitti(tmp_path: Path) -> None:
    put(tmp_path / "semantic/000000_10.png", [[7, 26, 0, 23]])
    names, _, source = scored(tmp_path, "kitti", "000000_10")
    assert names.tolist() == [["road_or_marking", "vehicle", "void", "background"]] and not source.instances
    put(tmp_path / "instance/000000_10.png", [[7 * 256, 26 * 256 + 1, 26 * 256 + 2, 26 * 256]], np.uint16)
    names, truth, source = scored(tmp_path, "kitti", "000000_10")
    assert names.tolist() == [["road_or_marking", "vehicle", "vehicle", "vehicle"]]
    assert source.instances and truth.crowds == (26 * 256,)


def test_coco(tmp_path: Path) -> None:
    segments = [
        {"id": 70_000, "category_id": 149},
        {"id": 5, "category_id": 3},
        {"id": 261, "category_id": 3, "iscrowd": 1},
        {"id": 9, "category_id": 1},
    ]
    names = {1: "person", 3: "car", 149: "road", 187: "sky-other-merged"}
    document = {
        "images": [{"id": 17, "file_name": "000000000017.jpg"}],
        "annotations": [{"image_id": 17, "file_name": "000000000017.png", "segments_info": segments}],
        "categories": [{"id": number, "name": name, "isthing": int(number < 100)} for number, name in names.items()],
    }
    (tmp_path / "panoptic_val2017.json").write_text(json.dumps(document))
    ids = np.array([[70_000, 5, 261, 9, 0]])
    bgr = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1)
    put(tmp_path / "panoptic_val2017/000000000017.png", bgr)
    found, truth, source = scored(tmp_path, "auto", "000000000017")
    assert found.tolist() == [["road_or_marking", "vehicle", "vehicle", "pedestrian_or_cyclist", "void"]]
    assert [truth.map[0, 2]] == list(truth.crowds) and len(np.unique(truth.map)) == 5 and source.instances


def test_a_crowd_with_the_smallest_id_leaves_the_stuff(tmp_path: Path) -> None:
    """Every pixel has a label, and the crowd is the first of the segments."""
    from drive_seg.offline.scoring import Prediction, Scorer

    ids = np.full((40, 60), 500_000)
    ids[20:], ids[10:20, 5:15] = 900_000, 7
    segments = [(500_000, 187, 0), (900_000, 149, 0), (7, 1, 1)]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "a.png",
                "segments_info": [{"id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in segments],
            }
        ],
        "categories": [
            {"id": i, "name": name} for i, name in ((1, "person"), (149, "road"), (187, "sky-other-merged"))
        ],
    }
    (tmp_path / "p.json").write_text(json.dumps(document))
    put(tmp_path / "p/a.png", np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1))
    prediction = np.zeros((40, 60), np.uint16)
    prediction[20:] = 1
    prediction[10:20, 5:15] = 4001
    source = open_folder(tmp_path, DRIVING)
    truth = source.find("a", 0)
    assert truth is not None
    scorer = Scorer(label_map_for(source, DRIVING))
    scorer.score("a", 0, truth, Prediction(prediction))
    figures = scorer.totals.figures()["panoptic"]
    assert figures["stuff"] == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "n": 2}
    assert figures["things"]["n"] == 0


def test_a_crowd_that_comes_first_is_a_crowd(tmp_path: Path) -> None:
    """BDD100K's segments are numbered by category; here a crowd of people is the lowest, before a car."""
    from drive_seg.offline.scoring import Prediction, Scorer

    bgra = np.zeros((20, 20, 4), np.uint8)
    bgra[..., 2], bgra[..., 1] = 31, 2
    bgra[10:] = (0, 0, 35, 1)
    put(tmp_path / "a.png", bgra)
    source = open_folder(tmp_path, DRIVING, "bdd100k")
    truth = source.find("a", 0)
    assert truth is not None
    scorer = Scorer(label_map_for(source, DRIVING))
    scorer.score("a", 0, truth, Prediction(np.repeat(np.uint16([4001, 3001]), 10)[:, None].repeat(20, axis=1)))
    rows = scorer.totals.figures()["panoptic"]["per_class"]
    assert [rows["pedestrian"][key] for key in ("tp", "fp", "fn")] == [0, 0, 0] and rows["vehicle"]["tp"] == 1


def test_coco_s_files_of_equal_names_are_refused(tmp_path: Path) -> None:
    """Names of images and of their PNGs tell frames apart, whatever folders they are in."""
    row = {"segments_info": [{"id": 1, "category_id": 1}]}
    images = [{"id": 1, "file_name": "x/a.jpg"}, {"id": 2, "file_name": "y/b.jpg"}, {"id": 3, "file_name": "y/a.jpg"}]
    for others, says in (
        ({"image_id": 2, "file_name": "y/a.png"}, r"several annotations called a\.png"),
        ({"image_id": 3, "file_name": "y/c.png"}, "several annotations of images called a"),
    ):
        annotations = [{"image_id": 1, "file_name": "x/a.png", **row}, {**others, **row}]
        document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        (tmp_path / "p.json").write_text(json.dumps(document))
        with pytest.raises(SourceError, match=says):
            open_truth(str(tmp_path / "p.json"), DRIVING)


def test_bdd100k(tmp_path: Path) -> None:
    put(tmp_path / "masks/b1.png", [[0, 13, 11, 12, 18, 255, 10]])
    found, _, source = scored(tmp_path / "masks", "bdd100k", "b1")
    things = ["vehicle", "pedestrian", "cyclist"]
    assert found.tolist() == [["road_or_marking", *things, "void", "void", "background"]] and not source.instances

    # R category, G attributes, 256 B + A the object: two cars, a crowd of cars, two pieces of road, nothing.
    rgba = [[35, 0, 1, 2], [35, 4, 0, 7], [35, 2, 0, 8], [7, 0, 0, 3], [7, 0, 0, 4], [31, 0, 0, 5], [0, 0, 0, 0]]
    bgra = np.array([rgba])[..., [2, 1, 0, 3]]
    put(tmp_path / "bitmasks/b1.png", bgra)
    found, truth, source = scored(tmp_path / "bitmasks", "bdd100k", "b1")
    expected = ["vehicle"] * 3 + ["road_or_marking"] * 2 + ["pedestrian", "void"]
    assert found.tolist() == [expected] and source.instances
    assert len(np.unique(truth.map)) == 6 and truth.map[0, 3] == truth.map[0, 4]
    assert list(truth.crowds) == [truth.map[0, 2]]
    put(tmp_path / "bitmasks/b1.png", bgra + np.array([0, 0, 40, 0]))
    with pytest.raises(SourceError, match=r"has category 75; BDD100K's bitmasks have 0\.\.40"):
        scored(tmp_path / "bitmasks", "bdd100k", "b1")


def test_camvid_in_colours_and_in_ids(tmp_path: Path) -> None:
    rgb = [[[128, 64, 128], [128, 0, 192], [64, 0, 128], [64, 64, 0], [0, 128, 192], [0, 0, 0]]]
    put(tmp_path / "colour/0016E5_00001_L.png", np.array(rgb)[..., ::-1])
    expected = ["road", "lane_marking", "vehicle", "pedestrian", "cyclist", "void"]
    assert scored(tmp_path / "colour", "camvid", "0016E5_00001")[0].tolist() == [expected]
    put(tmp_path / "ids/0016E5_00001.png", [[17, 10, 5, 16, 2, 30]])
    assert scored(tmp_path / "ids", "camvid", "0016E5_00001")[0].tolist() == [expected]
    put(tmp_path / "segnet/0016E5_00001.png", [[3, 8, 9, 10, 11, 0]])
    expected = ["road_or_marking", "vehicle", "pedestrian", "cyclist", "void", "background"]
    assert scored(tmp_path / "segnet", "camvid", "0016E5_00001")[0].tolist() == [expected]
    put(tmp_path / "exported/labels/0016E5_00001.png", [[3, 8, 9, 10, 11, 0]])
    put(tmp_path / "exported/images/0016E5_00001.png", np.zeros((1, 6, 3)))
    assert scored(tmp_path / "exported", "camvid", "0016E5_00001")[0].tolist() == [expected]
    put(tmp_path / "bad/a.png", [[[1, 2, 3]]])
    with pytest.raises(SourceError, match=r"colours of no class, such as RGB \(3, 2, 1\)"):
        scored(tmp_path / "bad", "camvid", "a")


def test_camvid_s_32_classes_need_not_be_in_the_first_picture(tmp_path: Path) -> None:
    put(tmp_path / "a.png", [[5, 2]])
    put(tmp_path / "b.png", [[17, 5]])
    assert scored(tmp_path, "camvid", "a")[0].tolist() == [["vehicle", "cyclist"]]


def test_training_ids_and_those_of_the_source_lie_side_by_side(tmp_path: Path) -> None:
    put(tmp_path / "labels/a.png", [[1, 2, 3, 255]])
    put(tmp_path / "labels_orig/a.png", [[17, 10, 5, 30]])
    seen = ["road", "lane_marking", "vehicle", "void"]
    for kind, label_map in (("auto", "labels"), ("labels", "labels"), ("camvid", "camvid")):
        names, _, source = scored(tmp_path, kind, "a")
        assert names.tolist() == [seen] and source.label_map == label_map, kind


def test_carla(tmp_path: Path) -> None:
    rgb = np.array([[[1, 0, 9], [24, 0, 9], [14, 1, 0], [14, 0, 1], [12, 2, 2], [11, 0, 9], [19, 3, 0]]])
    put(tmp_path / "instances/7.png", rgb[..., ::-1])
    names, truth, source = scored(tmp_path, "carla", "7")
    expected = ["road", "lane_marking", "vehicle", "vehicle", "pedestrian", "background", "void"]
    assert names.tolist() == [expected] and source.instances and truth.map[0, 2] != truth.map[0, 3]
    tags = np.array([[[1, 0, 0], [14, 0, 0]]])
    put(tmp_path / "tags/7.png", tags[..., ::-1])
    names, _, source = scored(tmp_path / "tags", "carla", "7")
    assert names.tolist() == [["road", "vehicle"]] and not source.instances
    painted = np.array([[[128, 64, 128], [157, 234, 50], [0, 0, 142]]])
    put(tmp_path / "palette/7.png", painted[..., ::-1])
    names, _, source = scored(tmp_path / "palette", "carla", "7")
    assert names.tolist() == [["road", "lane_marking", "vehicle"]] and not source.instances


def test_labels_of_training_folders(tmp_path: Path) -> None:
    put(tmp_path / "labels/a.png", [[0, 1, 2, 3, 4, 255]])
    names, _, source = scored(tmp_path, "auto", "a")
    assert names.tolist() == [["background", "road", "lane_marking", "vehicle", "pedestrian_or_cyclist", "void"]]
    assert not source.instances


@pytest.mark.parametrize(
    ("kind", "name", "pixels", "says"),
    [
        (
            "labels",
            "labels/a.png",
            [[0, 1, 5, 7]],
            r"class id 5, .*0 background, .* 4 people, and 255 is void; .*--format",
        ),
        ("cityscapes", "a_labelIds.png", [[7, 255, 34]], "class id 34, .* 34 from 0 unlabeled to 33 bicycle"),
        ("kitti", "semantic/a.png", [[7, 255, 40]], "class id 40, "),
        ("bdd100k", "a.png", [[0, 18, 255, 19]], "class id 19, "),
        ("camvid", "a.png", [[17, 31, 255, 32]], "class id 32, "),
        ("carla", "a.png", [[1, 28, 255, 29]], "class id 29, "),
        ("drive_seg", "mask/a.png", [[0, 5, 255, 6]], "class id 6, .* 5 cyclist, and 255 is void"),
    ],
)
def test_ids_that_a_format_does_not_have_are_refused(
    tmp_path: Path, kind: str, name: str, pixels: list[list[int]], says: str
) -> None:
    put(tmp_path / name, pixels)
    with pytest.raises(SourceError, match=rf"{name} has {says}"):
        open_folder(tmp_path, DRIVING, kind).find("a", 0)
    put(tmp_path / name, [row[:2] for row in pixels])
    assert open_folder(tmp_path, DRIVING, kind).find("a", 0) is not None


@pytest.mark.parametrize(
    ("value", "says"),
    [(6, r"panoptic id 6, "), (255, r"panoptic id 255, "), (7001, r"panoptic id 7001 \(class 7\), ")],
)
def test_panoptic_ids_without_a_class_are_refused(tmp_path: Path, value: int, says: str) -> None:
    put(tmp_path / "panoptic/a.png", [[0, 3, 3001, 5999, 65535]], np.uint16)
    assert open_folder(tmp_path, DRIVING).find("a", 0) is not None
    put(tmp_path / "panoptic/a.png", [[0, 3001, value, 65535]], np.uint16)
    with pytest.raises(SourceError, match=rf"a.png has {says}.*65535 is void"):
        open_folder(tmp_path, DRIVING).find("a", 0)
    put(tmp_path / "city/a_instanceIds.png", [[7, 26, 26001, 34000]], np.uint16)
    with pytest.raises(SourceError, match=r"panoptic id 34000 \(class 34\)"):
        open_folder(tmp_path / "city", DRIVING).find("a", 0)
    put(tmp_path / "kitti/instance/a.png", [[7 << 8, 255 << 8, 26 << 8 | 1, 34 << 8]], np.uint16)
    with pytest.raises(SourceError, match=r"class id 34, "):
        open_folder(tmp_path / "kitti", DRIVING, "kitti").find("a", 0)


def test_the_real_label_files_have_ids_of_their_format_only() -> None:
    data = os.environ.get("DRIVE_SEG_DATA")
    if not data or not (Path(data) / "camvid32/val/labels").is_dir():
        pytest.skip("DRIVE_SEG_DATA names no folder with camvid32/val")
    kinds = {
        "camvid32/val": ("auto", "camvid"),
        "camvid11/val": ("auto", "camvid"),
        "kitti_semantic": ("auto", "kitti"),
        "bdd100k_sample/train": ("auto", "kitti"),
        "carla_sample/carlascapes": ("auto", "carla"),
        "comma10k_sample": ("auto",),
        "tusimple_sample": ("auto",),
        "road_only_roboflow/valid": ("auto",),
    }
    for folder, formats in kinds.items():
        for kind in formats:
            source = open_folder(Path(data) / folder, DRIVING, kind)
            stems = [path.stem for path in sorted((Path(data) / folder / "images").iterdir())]
            assert all(source.find(stem, 0) is not None for stem in stems[:: max(1, len(stems) // 5)]), (folder, kind)


def pointer(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234567\n")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "is no ground truth that is recognised: expected panoptic/ or mask/"),
        (lambda p: (p / "panoptic").mkdir(), r"has no ground truth; expected files \*.png"),
        (lambda p: put(p / "panoptic/a.png", [[1, 2]]), "must be a 16-bit grey PNG of panoptic ids, got uint8"),
        (lambda p: put(p / "mask/a.png", [[1, 2]], np.uint16), "must be an 8-bit grey PNG of class ids, got uint16"),
        (lambda p: (p / "a.json").write_text("{}"), "is no COCO panoptic file"),
        (lambda p: pointer(p / "panoptic/a.png"), r"a\.png is no image .* got only a pointer of Git LFS"),
        (lambda p: pointer(p / "a.json"), r"a\.json is only a pointer of Git LFS"),
        (lambda p: pointer(p / "a_0.mcap"), r"a_0\.mcap is only a pointer of Git LFS"),
        (lambda p: [put(p / f"mask/{x}/a.png", [[1]]) for x in "12"], "have the same name"),
    ],
)
def test_errors_of_truth_say_what_was_expected(tmp_path: Path, make: Any, says: str) -> None:
    make(tmp_path)
    with pytest.raises(SourceError, match=says):
        open_truth(str(tmp_path), DRIVING).find("a", 0)


OWN = {label.name: {} for label in DRIVING}


def empty(*names: str) -> dict[str, Any]:
    """Scored classes that neither side has."""
    return {name: {"truth": [], "predicted": []} for name in names}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "must have 'classes"),
        ({"classes": {"road": {"truth": "road"}}}, r"class 'road' must be \{truth: \[...\]"),
        ({"classes": {"road": {}}, "colour": 1}, r"unknown keys \['colour'\]"),
        ({"classes": {"road": {}}, "instances": "no"}, "instances must be true or false"),
        ({"classes": {"road": {}}}, r"leaves out \['background', 'lane_marking'"),
        ({"classes": {"street": {"truth": ["road"]}}}, "names 'street', which the model does not have"),
        (
            {"classes": {"a": {"truth": ["road"], "predicted": ["road"]}, "b": {"truth": [], "predicted": ["road"]}}},
            "names 'road' of the model more than once",
        ),
        ({"classes": {False: {"truth": ["road"], "predicted": ["road"]}}}, r"map\.yaml: .* must be text, .* got False"),
        ({"classes": {**OWN, **empty("a\x1b[2J")}}, r"label map map\.yaml: .* without control characters"),
        ({"classes": {**OWN, **empty(*map(str, range(250)))}}, r"label map map\.yaml: at most 255 classes"),
        ({"classes": {**OWN, **empty(*map(str, range(251)))}}, r"label map map\.yaml: at most 255 classes"),
    ],
)
def test_errors_of_label_maps_say_what_is_wrong(tmp_path: Path, document: Any, says: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=says):
        bind(load_map(str(path)), DRIVING, {label.name: label.id for label in DRIVING})


def test_a_model_of_other_classes_needs_a_label_map_of_its_own(tmp_path: Path) -> None:
    put(tmp_path / "a_gtFine_labelIds.png", [[7, 26]])
    labels = LabelSet((Label(0, "road", False, (9, 9, 9)), Label(1, "car", True, (9, 0, 0))))
    source = open_truth(tmp_path, labels)
    with pytest.raises(ConfigError, match="it is for the shipped models: give another with --label-map"):
        label_map_for(source, labels)
    with pytest.raises(ConfigError, match=r"names '.*', which the model does not have; it has road, car$"):
        label_map_for(source, labels, "cityscapes")
    path = tmp_path / "map.yaml"
    path.write_text("classes: {road: {}, car: {}}")
    assert [label.name for label in label_map_for(source, labels, str(path)).labels] == ["road", "car"]


def test_things_may_be_anywhere_among_many_scored_classes(tmp_path: Path) -> None:
    """Panoptic ids end with class 64; segments that are scored need none."""
    model = LabelSet(tuple(Label(number, f"c{number}", number == 1, (9, 9, 9)) for number in range(100)))
    path = tmp_path / "map.yaml"
    classes = {label.name: {} for label in (*model.labels[2:], *model.labels[:2])}
    path.write_text(yaml.safe_dump({"classes": classes}, sort_keys=False))
    label_map = bind(load_map(str(path)), model, {label.name: label.id for label in model})
    truth = np.full((20, 30), 2, np.uint16)
    truth[5:15, 5:10], truth[5:15, 20:25] = 1001, 1002
    scorer = Scorer(label_map)
    scorer.score("a", 0, Truth(truth), Prediction(truth))
    assert scorer.totals.figures()["panoptic"]["per_class"]["c1"]["tp"] == 2


def test_shipped_label_maps_fit_the_default_labels() -> None:
    from drive_seg.offline.truth_carla import CARLA
    from drive_seg.offline.truth_sets import CAMVID, CAMVID_11, CITYSCAPES

    camvid = {name: number for number, name in enumerate(CAMVID)}
    tables = {"camvid": camvid, "camvid11": CAMVID_11, "cityscapes": CITYSCAPES, "carla": CARLA}
    for name, classes in tables.items():
        file = load_map(name)
        asked = [truth for row in file.classes for truth in row.truth]
        assert set(asked) <= set(classes), name
        label_map = bind(file, DRIVING, classes)
        assert (label_map.predicted[:6] != 255).all() and (label_map.predicted[6:] == 255).all()
        assert (label_map.lane is not None) == (name in ("camvid", "carla"))
    with pytest.raises(ConfigError, match="no label map 'nowhere', there are bdd100k, camvid"):
        load_map("nowhere")


def test_tags_of_carla_before_0_9_14_have_a_label_map() -> None:
    """Its documentation's table of then, see the references of the sensors of 0.9.13."""
    from drive_seg.offline.truth_carla import CARLA

    then = ["unlabeled", "building", "fence", "other", "pedestrian", "pole", "road line", "road", "sidewalk"]
    then += ["vegetation", "vehicles", "wall", "traffic sign", "sky", "ground", "bridge", "rail track", "guard rail"]
    then += ["traffic light", "static", "dynamic", "water", "terrain"]
    scored = {"pedestrian": "people", "road line": "lane_marking", "road": "road", "vehicles": "vehicle"}
    void = {"unlabeled", "dynamic"}
    label_map = bind(load_map("carla_before_0_9_14"), DRIVING, CARLA)
    names = [label.name for label in label_map.labels]
    for tag, name in enumerate(then):
        expected = "void" if name in void else scored.get(name, "background")
        found = int(label_map.truth[tag])
        assert ("void" if found == 255 else names[found]) == expected, name
