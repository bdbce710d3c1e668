"""Sets that a teacher completed, sets in packed form, weather, and choosing weights by held-out frames."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'drive_seg[train]')")

from checkpoints import write_checkpoint

from drive_seg import Pipeline
from drive_seg.errors import ConfigError
from drive_seg.labels import DRIVING
from drive_seg.network import pack as pack_module
from drive_seg.network import teach as teach_module
from drive_seg.network.augment import Augmentation
from drive_seg.network.bonnet import with_bonnet
from drive_seg.network.codes import NO_THING, PEDESTRIAN_OR_CYCLIST, ROAD_OR_MARKING, VOID
from drive_seg.network.datasets import load_set
from drive_seg.network.export import ModelCard, write_model
from drive_seg.network.held_out import HeldOut, score
from drive_seg.network.mixture import open_sets
from drive_seg.network.pack import pack
from drive_seg.network.panoptic import NetworkConfig, PanopticNet
from drive_seg.network.render import render
from drive_seg.network.samples import UNKNOWN_INSTANCE, InMemory, Sample, Taught
from drive_seg.network.start import settle, start_from
from drive_seg.network.teach import Teacher, decide, teach
from drive_seg.network.train import train
from drive_seg.network.train_config import TrainConfig, load_train_config
from drive_seg.network.weather import under_weather

TINY = NetworkConfig(encoder="plain", channels=(8, 8, 16, 16, 16), blocks=(1, 1, 1), context=16, decoder=16, head=16)


def samples(count: int, height: int = 48, width: int = 64) -> InMemory:
    """Smooth pictures (JPEG keeps them), some with objects and some without."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        small = rng.integers(0, 256, (3, 4, 3), np.uint8)
        image = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        codes = np.full((height, width), ROAD_OR_MARKING, np.uint8)
        codes[:10] = VOID
        instances = np.zeros((height, width), np.uint16)
        classes = [0]
        if seed % 2:
            codes[20:30, 5:15], instances[20:30, 5:15] = 3, 1
            codes[20:30, 40:50], instances[20:30, 40:50] = 4, UNKNOWN_INSTANCE
            classes.append(3)
        made.append(Sample(image, codes, instances, np.array(classes, np.uint8)))
    return InMemory(made)


def coco_street(root: Path, *objects: str) -> Sample:
    """The one grey image of a COCO set in YOLO's form, 40x30, with a line for each of its objects."""
    folder = root / "instances_real" / "coco128_seg"
    for name in ("images", "labels_yolo_seg"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / "street.png"), np.full((30, 40, 3), 128, np.uint8))
    (folder / "labels_yolo_seg" / "street.txt").write_text("\n".join(objects) + "\n")
    return load_set("coco", root)[0]


def corners(*points: tuple[float, float]) -> str:
    return " ".join(f"{x / 40:.6f} {y / 30:.6f}" for x, y in points)


@pytest.mark.parametrize(("kind", "code"), [(0, 4), (2, 3), (5, 3), (6, 3), (7, 3), (1, VOID), (9, NO_THING)])
def test_coco_s_trains_are_vehicles_as_everywhere_else(kind: int, code: int, tmp_path: Path) -> None:
    sample = coco_street(tmp_path, f"{kind} {corners((10, 10), (20, 10), (20, 20), (10, 20))}")
    assert sample.codes[15, 15] == code and sample.codes[2, 2] == NO_THING
    assert sample.classes[sample.instances[15, 15]] == (code if code in (3, 4) else 0)


def test_coco_s_outlines_lie_in_a_mirrored_picture_where_they_lay(tmp_path: Path) -> None:
    outline = [(10.2, 5.3), (20.4, 5.3), (24.3, 25.4), (10.2, 25.4)]
    mirrored = [(40 - x, 30 - y) for x, y in outline]
    here, there = (coco_street(tmp_path, f"2 {corners(*points)}") for points in (outline, mirrored))
    assert np.array_equal(there.codes, here.codes[::-1, ::-1])
    assert np.array_equal(there.instances, here.instances[::-1, ::-1])


@pytest.mark.parametrize(
    ("outline", "pixels"),
    [
        ([(10, 5), (20, 5), (20, 25), (10, 25)], 200),
        ([(10.2, 5.3), (20.4, 5.3), (20.4, 25.4), (10.2, 25.4)], 200),
        ([(-8, -6), (20, -6), (20, 40), (-8, 40)], 600),  # cut off by the picture
        # Two parts with a way there and back, as YOLO's form writes them.
        ([(5, 5), (9, 5), (9, 25), (9, 9), (30, 9), (30, 20), (35, 20), (35, 9), (9, 9), (9, 25), (5, 25)], 135),
    ],
)
def test_coco_s_objects_are_as_large_as_their_outlines(
    outline: list[tuple[float, float]], pixels: int, tmp_path: Path
) -> None:
    """What the outline touches is not inside, as in COCO's own masks; nor are the ways between the parts."""
    sample = coco_street(tmp_path, f"2 {corners(*outline)}")
    assert (sample.codes == 3).sum() == (sample.instances == 1).sum() == pixels


class SaysMarking(Teacher):
    """Sees markings in the left half, is torn in the middle, sees road on the right."""

    def __init__(self) -> None:
        pass

    def votes(self, image: np.ndarray, members: tuple[int, ...]) -> np.ndarray:
        width = image.shape[1]
        marking = np.full(width, 0.5, np.float32)
        marking[: width // 4], marking[-width // 4 :] = 0.9, 0.1
        per_class = {1: 1 - marking, 2: marking}
        return np.stack([np.broadcast_to(per_class[m], image.shape[:2]) for m in members])


def test_a_teacher_decides_only_open_stuff_and_only_where_it_is_sure() -> None:
    sample = samples(2)[1]
    sample.codes[40:, :] = PEDESTRIAN_OR_CYCLIST
    decided = decide(sample.codes, sample.image, SaysMarking())
    open_stuff = sample.codes == ROAD_OR_MARKING
    assert (decided[~open_stuff] == sample.codes[~open_stuff]).all()
    columns = np.broadcast_to(np.arange(64), decided.shape)
    assert set(decided[open_stuff & (columns < 16)]) == {2}
    assert set(decided[open_stuff & (columns >= 48)]) == {1}
    assert set(decided[open_stuff & (columns >= 16) & (columns < 48)]) == {ROAD_OR_MARKING}


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """A rendered frame and its panoptic map."""
    folder = tmp_path_factory.mktemp("street")
    render(folder, 1, 1, 640, 384, first_seed=5)
    return np.load(folder / "images.npy")[0], np.load(folder / "panoptic.npy")[0]


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames to learn from, which no run changes."""
    folder = tmp_path_factory.mktemp("sim")
    render(folder, 2, 1, 96, 64, first_seed=3)
    return folder


def test_a_real_model_teaches_markings_it_sees_and_mirrors_nothing(street: tuple[np.ndarray, np.ndarray]) -> None:
    image, panoptic = street
    truth = np.where(panoptic < 255, panoptic, 255).astype(np.uint8)
    codes = np.where(np.isin(truth, (1, 2)), ROAD_OR_MARKING, VOID).astype(np.uint8)
    teacher = Teacher(widths=(640,))
    try:
        votes = teacher.votes(image, (1, 2))
        mirrored = teacher.votes(np.ascontiguousarray(image[:, ::-1]), (1, 2))[:, :, ::-1]
        decided = decide(codes, image, teacher)
    finally:
        teacher.close()
    assert np.abs(votes - mirrored).mean() < 0.02
    sure = np.isin(decided, (1, 2))
    assert sure.sum() > 0.7 * np.isin(truth, (1, 2)).sum()
    assert (decided[sure] == truth[sure]).mean() > 0.97


def test_a_folder_of_a_configuration_is_taught_by_its_name(
    street: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, panoptic = street
    for folder, name, pixels in (
        ("leftImg8bit/train/ulm", "ulm_000001_leftImg8bit.png", image[..., ::-1]),
        ("gtFine/train/ulm", "ulm_000001_gtFine_instanceIds.png", np.where(np.isin(panoptic, (1, 2)), 7, 11)),
    ):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / name), pixels.astype(np.uint8 if pixels.ndim == 3 else np.uint16))
    config = tmp_path / "c.yaml"
    config.write_text(
        "folders: {city: {images: leftImg8bit/train, truth: gtFine/train, format: cityscapes}}\nsets: {city: 1}\n"
    )
    given = ["--set", "city", "--config", str(config), "--data", str(tmp_path), "-o", str(tmp_path / "taught")]
    monkeypatch.setattr(sys, "argv", ["teach", *given])
    teach_module.main()
    taught = open_sets(
        TrainConfig(
            sets={"city": 1.0},
            folders=load_train_config(config).folders,
            taught={"city": str(tmp_path / "taught/city")},
            data_root=tmp_path,
        )
    )["city"][0]
    sure = np.isin(taught.codes, (1, 2))
    assert sure.sum() > 0.7 * np.isin(panoptic, (1, 2)).sum()
    assert (taught.codes[sure] == panoptic[sure]).mean() > 0.97


def test_taught_codes_take_the_place_of_the_sets_own(tmp_path: Path) -> None:
    plain = samples(3)
    pixels = teach(SaysMarking(), plain, tmp_path / "taught")
    taught = Taught(plain, tmp_path / "taught")
    assert len(taught) == 3
    assert pixels == sum(int((taught[i].codes != plain[i].codes).sum()) for i in range(3)) > 0
    assert (taught[1].image == plain[1].image).all() and (taught[1].instances == plain[1].instances).all()
    with pytest.raises(ConfigError, match="3 PNG, the set it was taught for 4 images"):
        Taught(samples(4), tmp_path / "taught")


def test_a_set_is_taught_again_after_it_lost_images(tmp_path: Path) -> None:
    teach(SaysMarking(), samples(3), tmp_path / "taught")
    teach(SaysMarking(), samples(2), tmp_path / "taught")
    assert len(Taught(samples(2), tmp_path / "taught")) == 2


def test_packed_sets_come_back_in_bounded_pieces(tmp_path: Path) -> None:
    plain = samples(5)
    written = pack("mine", plain, tmp_path, chunk_bytes=4000)
    assert len(written) > 1 and all(path.stat().st_size < 6000 for path in written)
    packed = open_sets(TrainConfig(sets={"mine": 1.0}, data_root=tmp_path))["mine"]
    assert len(packed) == 5
    for number in range(5):
        before, after = plain[number], packed[number]
        assert (before.codes == after.codes).all() and (before.instances == after.instances).all()
        assert before.classes.tolist() == after.classes.tolist()
        assert np.abs(before.image.astype(int) - after.image).max() < 24
    written[0].write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match=r"mine-000\.zip is not a packed training set"):
        open_sets(TrainConfig(sets={"mine": 1.0}, data_root=tmp_path))


def test_sets_are_packed_where_no_frames_of_the_simulator_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for folder, shape in (("images", (32, 32, 3)), ("labels", (32, 32))):
        cv2.imwrite(str(tmp_path / folder / "a.png"), np.zeros(shape, np.uint8))
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data_root: {tmp_path}\nsim_folder: {tmp_path}/nowhere\nsets: {{sim: 0.5, mine: 0.5}}\n"
        "folders: {mine: {images: images, truth: ., format: labels}}\n"
    )
    monkeypatch.setattr(sys, "argv", ["pack", str(config), "-o", str(tmp_path / "packed")])
    pack_module.main()
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["mine-000.zip"]


@pytest.mark.parametrize(("lost", "message"), [(0, r"mine-000\.zip is missing"), (1, "001"), (-1, "the last files of")])
def test_a_file_of_a_packed_set_that_got_lost_is_missed(lost: int, message: str, tmp_path: Path) -> None:
    written = pack("mine", samples(5), tmp_path, chunk_bytes=4000)
    assert len(written) > 2
    written[lost].unlink()
    with pytest.raises(ConfigError, match=message):
        open_sets(TrainConfig(sets={"mine": 1.0}, data_root=tmp_path))


def test_a_packed_set_is_told_from_one_whose_name_goes_on(tmp_path: Path) -> None:
    pack("city-night", samples(3), tmp_path, chunk_bytes=1)
    pack("city", samples(2), tmp_path, chunk_bytes=1)
    sets = open_sets(TrainConfig(sets={"city": 0.5, "city-night": 0.5}, data_root=tmp_path))
    assert {name: len(found) for name, found in sets.items()} == {"city": 2, "city-night": 3}
    pack("city", samples(1), tmp_path, chunk_bytes=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "city-000.zip", "city-night-000.zip", "city-night-001.zip", "city-night-002.zip",
    ]  # fmt: skip


def test_rendering_says_how_far_it_is_once_where_nobody_looks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "drive_seg.network.render", str(tmp_path), "--drives", "2", "--size", "96x64"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "4/4\n"


def test_frames_do_not_depend_on_how_many_processes_render_them(tmp_path: Path) -> None:
    seen = []
    render(tmp_path / "one", 3, 2, 96, 64, first_seed=7, progress=lambda done, total: seen.append((done, total)))
    render(tmp_path / "two", 3, 2, 96, 64, first_seed=7, workers=2)
    assert seen == [(2, 6), (4, 6), (6, 6)]
    for name in ("images.npy", "panoptic.npy"):
        one = np.load(tmp_path / "one" / name)
        assert one.shape[0] == 6 and (one == np.load(tmp_path / "two" / name)).all()


def test_a_rendering_that_was_stopped_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(tmp_path, 2, 1, 64, 64, progress=stop)
    assert not (tmp_path / "panoptic.npy").exists(), "make model would go on with black frames"
    render(tmp_path, 2, 1, 64, 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "panoptic.npy"]
    assert all(image.any() for image in np.load(tmp_path / "images.npy"))


def test_weather_changes_pictures_by_its_generator_alone() -> None:
    image = samples(1)[0].image
    seen = {under_weather(image, np.random.default_rng(seed)).tobytes() for seed in range(8)}
    assert len(seen) == 8
    again = under_weather(image, np.random.default_rng(3))
    assert (again == under_weather(image, np.random.default_rng(3))).all()
    assert again.dtype == np.uint8 and again.shape == image.shape


@pytest.mark.parametrize("seed", range(8))
def test_a_bonnet_hides_the_lower_edge_and_nothing_else(seed: int) -> None:
    street = Sample(
        np.random.default_rng(seed).integers(0, 256, (72, 128, 3), np.uint8),
        np.full((72, 128), ROAD_OR_MARKING, np.uint8),
        np.full((72, 128), 1, np.uint16),
        np.array([0, 3], np.uint8),
    )
    before = street.image.copy()
    seen = with_bonnet(street, np.random.default_rng(seed))
    hidden = seen.codes == 0
    assert np.array_equal(seen.instances, np.where(hidden, 0, 1))
    assert np.array_equal(seen.image[~hidden], before[~hidden])
    assert (seen.image[hidden] != before[hidden]).mean() > 0.9
    assert np.array_equal(street.image, before)
    # One piece that stands on the lower edge: where a column is hidden, so is all below.
    assert np.array_equal(np.sort(hidden, axis=0), hidden)
    assert 0.01 < hidden.mean() < 0.25
    again = with_bonnet(street, np.random.default_rng(seed))
    assert np.array_equal(again.image, seen.image)


def test_weights_are_scored_in_a_network_of_the_size_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def validate(pipeline: Pipeline, *_: object) -> dict[str, dict[str, float]]:
        sizes.append(pipeline.network_size)
        return {"pq": {"mean": 0.5}}

    monkeypatch.setattr("drive_seg.network.held_out.validate_simulator", validate)
    net = PanopticNet(TINY)
    assert score(net, HeldOut(drives=1), tmp_path) == {"pq": 0.5, "score": 0.5}
    score(net, HeldOut(drives=1, network=(320, 192)), tmp_path)
    assert sizes == [(640, 384), (320, 192)]


def test_the_weights_that_scored_best_are_kept_and_can_be_started_from(drives: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        out_dir=tmp_path / "run",
        sim_folder=drives,
        steps=4,
        batch=2,
        workers=0,
        threads=1,
        save_every=4,
        imagenet=False,
        network=TINY,
        augmentation=Augmentation(width=96, height=64),
        held_out=HeldOut(drives=1, every=2),
    )
    best = train(config)
    with (tmp_path / "run" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4]
    state = torch.load(best, weights_only=True)
    assert best.name == "best.pt"
    assert state["step"] == int(max(rows, key=lambda row: float(row["score"]))["step"])
    net = PanopticNet(TINY)
    net.load_state_dict(state["average"])
    expected = max(float(row["score"]) for row in rows)
    assert score(net, config.held_out, tmp_path)["score"] == pytest.approx(expected, abs=1e-6)

    longer = replace(config, out_dir=tmp_path / "second", start=str(best), rate=1e-9, held_out=HeldOut())
    again = torch.load(train(longer), weights_only=True)
    for name, value in state["average"].items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(value, again["weights"][name], atol=1e-5), name
    with pytest.raises(ConfigError, match=r"start: checkpoint .*nowhere\.pt does not exist"):
        train(replace(longer, out_dir=tmp_path / "third", start=str(tmp_path / "nowhere.pt")))


def test_an_image_that_cannot_be_learnt_from_is_one_line_also_from_a_loader_process(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "lonely.png"), np.zeros((64, 96, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "labels" / "other.png"), np.zeros((64, 96), np.uint8))
    config = {
        "out_dir": str(tmp_path / "run"), "data_root": str(tmp_path), "sets": {"mine": 1.0}, "steps": 1, "batch": 2,
        "workers": 1, "threads": 1, "folders": {"mine": {"images": "images", "truth": ".", "format": "labels"}},
        "imagenet": False, "network": asdict(TINY), "augmentation": {"width": 96, "height": 64},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    # In a process of its own: this one has too many libraries' threads to be forked.
    command = [sys.executable, "-m", "drive_seg", "train", str(tmp_path / "mine.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = f"folders.mine: image {tmp_path / 'images' / 'lonely.png'} has no truth in ."
    assert said in done.stderr.replace("\n", ""), done.stderr


def filter_sizes(net: PanopticNet) -> torch.Tensor:
    """Lengths of all filters that a batch norm follows."""
    pairs = (pair for module in net.modules() if isinstance(module, torch.nn.Sequential) for pair in pairwise(module))
    before = [one.weight for one, other in pairs if isinstance(other, torch.nn.BatchNorm2d)]
    return torch.cat([weight.flatten(1).norm(dim=1) for weight in before if isinstance(weight, torch.Tensor)])


def test_a_finished_model_can_be_started_from(drives: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = PanopticNet(TINY)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.2, 3.0),
                (module.weight, 0.1, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                assert values is not None
                torch.nn.init.uniform_(values, low, high)
    sidecar = write_model(
        made, tmp_path / "theirs.yaml", ModelCard("their images", "for research only"), DRIVING, (96, 64)
    )
    images = [torch.rand(2, 3, 64, 96) * 2 - 1 for _ in range(3)]
    with torch.no_grad():
        expected = made.eval()(images[0])
        net = PanopticNet(TINY)
        fresh = filter_sizes(net)
        start = start_from(net, str(sidecar))
        assert torch.allclose(filter_sizes(net), fresh)  # a step of the optimiser would be a leap for small ones
        for settled in (False, True):
            if settled:
                settle(net, images)
            found = net.eval()(images[0])
            assert torch.allclose(found.semantic, expected.semantic, atol=1e-5)
            assert torch.allclose(found.offsets, expected.offsets, atol=1e-3)
        # Settled: with these images' own statistics it says the same, which it did not with the folded norms' 0 and 1.
        together = torch.cat(images)
        calm = net.eval()(together).semantic
        assert (net.train()(together).semantic - calm).norm() < 1e-3 * calm.norm()
    assert start.folded and start.terms.license == "for research only"

    config = TrainConfig(
        out_dir=tmp_path / "run",
        sim_folder=drives,
        steps=2,
        batch=2,
        workers=0,
        threads=1,
        imagenet=False,
        network=TINY,
        augmentation=Augmentation(width=96, height=64),
        start=str(sidecar),
        rate=1e-9,
        training_data="our images",
        license="Apache-2.0",
    )
    state = torch.load(train(config), weights_only=True)
    assert state["training_data"] == "their images Then: our images"
    assert state["license"] == "for research only And: Apache-2.0"
    net.load_state_dict(state["average"])
    with torch.no_grad():
        assert (net.eval()(images[0]).semantic - expected.semantic).norm() < 0.2 * expected.semantic.norm()
    wider = replace(config, out_dir=tmp_path / "other", network=replace(TINY, head=TINY.head + 8))
    with pytest.raises(ConfigError, match=r"theirs\.onnx is of another network: it has \d+ convolutions"):
        train(wider)
    (tmp_path / "theirs.onnx").write_bytes(b"changed")
    with pytest.raises(ConfigError, match=r"start: neither a checkpoint \(\.pt\) nor a model to go on from: .*sha256"):
        train(replace(config, out_dir=tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"start: neither .* no model .nowhere. in"):
        train(replace(config, out_dir=tmp_path / "other", start="nowhere"))


def test_a_network_may_grow_out_of_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(1)
    small = PanopticNet(TINY)
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    small(torch.randn(4, 3, 64, 64))  # norms that have seen something
    write_checkpoint(tmp_path / "small.pt", small)
    image = torch.randn(1, 3, 64, 96)
    expected = small.eval()(image)
    for change in ({"refine": True}, {"decoder": 24}, {"head": 24, "refine": True}):
        net = PanopticNet(replace(TINY, **change))
        assert not start_from(net, str(tmp_path / "small.pt")).folded
        found = net.eval()(image)
        for name in ("semantic", "centers", "offsets"):
            assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-4), (change, name)
        # And what is new may learn: it is not cut off from the loss.
        net.train()(image).semantic.square().sum().backward()
        if net.config.refine:
            assert net.refine.mix[1].weight.grad.abs().sum() > 0
        if net.config.decoder > TINY.decoder:
            assert net.fuse8[0].weight.grad[:, TINY.decoder :].abs().sum() > 0
    for change, layer in (({"head": 8}, "fuse8"), ({"context": 32}, "context"), ({"classes": 5}, "semantic")):
        with pytest.raises(ConfigError, match=rf"small\.pt is of another network: {layer}\S* is \("):
            start_from(PanopticNet(replace(TINY, **change)), str(tmp_path / "small.pt"))
