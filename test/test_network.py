"""The torch side: heads, decisions in the graph, partial labels, training and export. Skipped without torch."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'drive_seg[train]')")

from checkpoints import write_checkpoint
from command_line import drive_seg

from drive_seg import open_pipeline
from drive_seg.errors import ConfigError, ModelError
from drive_seg.labels import DRIVING
from drive_seg.model import PRECISIONS, load_model
from drive_seg.network.augment import Augmentation, view
from drive_seg.network.codes import NOT_ROAD, PEDESTRIAN_OR_CYCLIST, ROAD_OR_MARKING, VOID
from drive_seg.network.datasets import CAMSEQ_LEARNT, load_set
from drive_seg.network.deploy import ITSELF, NEAR_WINDOW, PEAK_WINDOW, DeployedNet, decide, peaks
from drive_seg.network.export import ModelCard, export_onnx, write_model
from drive_seg.network.folders import FolderConfig
from drive_seg.network.lite import LiteEncoder
from drive_seg.network.losses import (
    BatchTargets,
    LossConfig,
    PanopticLoss,
    focal,
    lovasz_softmax,
    offset_error,
    small_weight,
)
from drive_seg.network.mixture import open_sets
from drive_seg.network.panoptic import NetworkConfig, PanopticNet, RawMaps
from drive_seg.network.paste import cut_out, paste
from drive_seg.network.precision import calibration_images
from drive_seg.network.samples import UNKNOWN_INSTANCE, InMemory, Sample, sample_of_panoptic
from drive_seg.network.targets import MIN_PIXELS, make_targets, possible_classes
from drive_seg.network.train import train
from drive_seg.network.train_config import TrainConfig, load_train_config
from drive_seg.network.validate import labelled_folder

TINY = NetworkConfig(encoder="plain", channels=(8, 8, 16, 16, 16), blocks=(1, 1, 1), context=16, decoder=16, head=16)
THINGS = (3, 4, 5)


def scene(seed: int = 0, height: int = 64, width: int = 96) -> Sample:
    """A picture whose colours give its classes away, two vehicles and one person in it."""
    rng = np.random.default_rng(seed)
    panoptic = np.zeros((height, width), np.uint16)
    panoptic[height // 2 :] = 1
    panoptic[height // 2 :, width // 2 - 1 : width // 2 + 1] = 2
    left = int(rng.integers(4, 16))
    panoptic[24:44, left : left + 24] = 3001
    panoptic[28:40, 60:76] = 3002
    panoptic[20:46, 84:90] = 4001
    colors = np.zeros((256, 3), np.uint8)
    colors[:6] = [label.color for label in DRIVING]
    sample = sample_of_panoptic(np.zeros((height, width, 3), np.uint8), panoptic)
    noisy = colors[sample.codes].astype(int) + rng.integers(-10, 10, (height, width, 3))
    return replace(sample, image=np.clip(noisy, 0, 255).astype(np.uint8))


def brute_force_peaks(heat: np.ndarray, window: int) -> np.ndarray:
    """Highest of the window, and the first in reading order among equals within reach."""
    reach = window // 2
    height, width = heat.shape
    kept = np.zeros_like(heat)
    for i in range(height):
        for j in range(width):
            rivals = [
                (heat[y, x], (y, x))
                for y in range(max(i - reach, 0), min(i + reach + 1, height))
                for x in range(max(j - reach, 0), min(j + reach + 1, width))
                if (y, x) != (i, j)
            ]
            if all(value < heat[i, j] or (value == heat[i, j] and place > (i, j)) for value, place in rivals):
                kept[i, j] = heat[i, j]
    return kept


@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 32), (96, 160)])
def test_heads_have_the_size_of_the_cells(height: int, width: int) -> None:
    maps = PanopticNet(TINY).eval()(torch.zeros(2, 3, height, width))
    assert maps.semantic.shape == (2, 6 * 16, height // 4, width // 4)
    assert maps.centers.shape == (2, 3, height // 4, width // 4)
    assert maps.offsets.shape == (2, 2, height // 4, width // 4)


def test_some_subpixels_are_the_same_as_all_of_them() -> None:
    net = PanopticNet(TINY).eval()
    torch.nn.init.normal_(net.semantic.weight)
    image, chosen = torch.randn(1, 3, 32, 64), torch.tensor([5, 0, 14])
    every = net(image).semantic.view(1, 6, 16, 8, 16)
    assert torch.allclose(net(image, chosen).semantic.view(1, 6, 3, 8, 16), every[:, :, chosen], atol=1e-5)


def test_default_network_is_of_the_promised_size() -> None:
    parameters = sum(p.numel() for p in PanopticNet().parameters())
    assert 1_000_000 <= parameters <= 5_000_000


def test_decide_is_argmax_and_softmax_at_full_resolution() -> None:
    logits = torch.randn(2, 6, 16, 5, 7) * 3
    semantic, confidence = decide(logits.flatten(1, 2))
    # (N, C, 4, 4, h, w) -> (N, C, h, 4, w, 4) -> (N, C, 4 h, 4 w)
    full = logits.view(2, 6, 4, 4, 5, 7).permute(0, 1, 4, 2, 5, 3).reshape(2, 6, 20, 28)
    probability = torch.softmax(full, 1).max(1).values
    assert semantic.dtype == confidence.dtype == torch.uint8
    assert torch.equal(semantic.long(), full.argmax(1))
    assert (confidence.float() - 255 * probability).abs().max() <= 0.51


def test_labels_survive_the_way_through_cells_and_back() -> None:
    codes = np.random.default_rng(0).integers(0, 6, (32, 64)).astype(np.uint8)
    nothing = np.zeros(codes.shape, np.uint16)
    sample = Sample(np.zeros((32, 64, 3), np.uint8), codes, nothing, np.zeros(1, np.uint8))
    targets = make_targets(sample, THINGS, possible_classes(6))
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(targets.codes).long(), 6).permute(3, 0, 1, 2)
    semantic, _ = decide(one_hot[None].float().flatten(1, 2))
    assert np.array_equal(semantic[0].numpy(), codes)


@pytest.mark.parametrize("levels", [4, 50, 10_000])
def test_peaks_agree_with_brute_force_also_on_plateaus(levels: int) -> None:
    rng = np.random.default_rng(levels)
    heat = (rng.integers(1, levels + 1, (2, 3, 17, 23)) / levels).astype(np.float32)
    # Smooth, so that plateaus are connected, as they are in 16-bit arithmetic.
    heat = np.round(np.stack([[cv2.blur(c, (3, 3)) for c in n] for n in heat]) * levels) / levels
    heat = heat.astype(np.float32)
    offsets = rng.uniform(-2 * ITSELF, 2 * ITSELF, (2, 2, 17, 23)).astype(np.float32)
    found = peaks(torch.from_numpy(heat), torch.from_numpy(offsets)).numpy()
    added = 0
    for n in range(2):
        itself = np.abs(offsets[n]).max(axis=0) < ITSELF
        for t in range(3):
            wide = brute_force_peaks(heat[n, t], PEAK_WINDOW)
            near = np.where(itself, brute_force_peaks(heat[n, t], NEAR_WINDOW), 0)
            assert np.array_equal(found[n, t], np.maximum(wide, near))
            added += np.count_nonzero((near > 0) & (wide == 0))
    assert added > 0


@pytest.mark.parametrize("offset", [0.0, 40.0])
def test_a_plateau_is_one_peak(offset: float) -> None:
    heat = torch.zeros(1, 1, 16, 16)
    heat[0, 0, 5:8, 6:9] = 0.75
    found = peaks(heat, torch.full((1, 2, 16, 16), offset))
    assert int((found > 0).sum()) == 1
    assert found[0, 0, 5, 6] == 0.75


def test_targets_point_to_the_mass_centre() -> None:
    sample = scene()
    targets = make_targets(sample, THINGS, possible_classes(6))
    rows, columns = np.nonzero(sample.instances == 2)
    middle = np.array([rows.mean(), columns.mean()])
    cell = sample.instances[1::4, 1::4] == 2
    ys, xs = np.nonzero(cell)
    reached = np.stack((4 * ys + 1.5, 4 * xs + 1.5)) + targets.offsets[:, ys, xs]
    assert (targets.pixels[cell] == len(rows)).all()
    assert np.allclose(reached, middle[:, None], atol=1e-3)
    assert targets.heat[0, int(middle[0] + 0.5) // 4, int(middle[1] + 0.5) // 4] == 1.0
    assert (targets.heat == 1).sum(axis=(1, 2)).tolist() == [2, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_heat_is_the_highest_of_gaussians_as_wide_as_their_objects(seed: int) -> None:
    random = np.random.default_rng(seed)
    panoptic = np.ones((64, 96), np.uint16)
    for number in range(8):  # some of them side by side, some in part behind others
        y, x, height, width = random.integers((0, 0, 4, 4), (56, 88, 30, 30))
        panoptic[y : y + height, x : x + width] = 3001 + 1000 * (number // 4) + number % 4
    sample = sample_of_panoptic(np.zeros((64, 96, 3), np.uint8), panoptic)
    heat = np.zeros((3, 16, 24))
    for number in np.unique(sample.instances[sample.instances > 0]):
        rows, columns = np.nonzero(sample.instances == number)
        if len(rows) < MIN_PIXELS:
            continue
        row, column = (int(of.mean() + 0.5) // 4 for of in (rows, columns))
        sigma = max(0.8, len(rows) ** 0.5 / 24)
        channel = heat[THINGS.index(int(sample.classes[number]))]
        for y, x in np.ndindex(channel.shape):
            if max(abs(y - row), abs(x - column)) <= np.ceil(3 * sigma):
                bell = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * sigma**2))
                channel[y, x] = max(channel[y, x], bell)
    targets = make_targets(sample, THINGS, possible_classes(6))
    np.testing.assert_allclose(targets.heat, heat, atol=1e-6)


def test_a_centre_is_asked_for_where_nothing_else_is_known() -> None:
    panoptic = np.ones((64, 96), np.uint16)
    panoptic[16:48, 16:48] = 3001
    panoptic[24:40, 24:40] = 65535
    targets = make_targets(sample_of_panoptic(np.zeros((64, 96, 3), np.uint8), panoptic), THINGS, possible_classes(6))
    void = targets.codes[5] == VOID
    assert int(void.sum()) == 16 and targets.known[:, ~void].all()
    assert np.argwhere(targets.known[0] & void).tolist() == np.argwhere(targets.heat[0] == 1).tolist() == [[8, 8]]


def test_an_object_of_a_few_pixels_is_left_open() -> None:
    for pixels in (MIN_PIXELS - 1, MIN_PIXELS):
        panoptic = np.ones((64, 96), np.uint16)
        panoptic[20, 40 : 40 + pixels - 16], panoptic[21:23, 40:48] = 4001, 4001
        sample = sample_of_panoptic(np.zeros((64, 96, 3), np.uint8), panoptic)
        targets = make_targets(sample, THINGS, possible_classes(6))
        there = sample.codes[1::4, 1::4] == 4
        asked = pixels == MIN_PIXELS
        assert there.any() and (targets.pixels[there] == (pixels if asked else 0)).all()
        assert (targets.heat[1].max() == 1) == asked
        assert targets.known[1][there].all() == asked and targets.known[0].all()


def test_unknown_instances_ask_for_no_center_and_no_offset() -> None:
    sample = scene()
    sample.instances[sample.instances > 0] = UNKNOWN_INSTANCE
    targets = make_targets(sample, THINGS, possible_classes(6))
    vehicle = sample.codes[1::4, 1::4] == 3
    assert not targets.known[0][vehicle].any()
    assert targets.known[1][vehicle].all(), "a vehicle is certainly no pedestrian"
    assert not targets.pixels.any()


@pytest.mark.parametrize(
    ("code", "members"),
    [(1, (1,)), (ROAD_OR_MARKING, (1, 2)), (PEDESTRIAN_OR_CYCLIST, (4, 5)), (NOT_ROAD, (0, 3, 4, 5))],
)
def test_a_set_of_classes_is_asked_for_by_its_probability(code: int, members: tuple[int, ...]) -> None:
    config = LossConfig(classes=(1.0,) * 6, hard=1.0)
    logits = torch.randn(1, 6 * 16, 3, 5)
    loss = PanopticLoss(config).semantic(logits, torch.full((1, 16, 3, 5), code), torch.ones(1, 3, 5))
    probability = torch.softmax(logits.view(1, 6, 16, 3, 5), 1)[:, list(members)].sum(1)
    assert torch.allclose(loss, -probability.log().mean(), atol=1e-4)


def test_small_objects_count_more_and_all_alike_when_that_is_off() -> None:
    pixels = torch.tensor([[[0, 16, 64, 256, 1024, 9]]], dtype=torch.int32)
    assert small_weight(pixels, 256.0).tolist() == [[[1.0, 4.0, 2.0, 1.0, 1.0, 4.0]]]
    assert small_weight(pixels, 0.0).unique().tolist() == [1.0]
    offsets, wanted = torch.zeros(1, 2, 1, 6), torch.tensor([9.0, 1.0, 2.0, 3.0, 3.0, 0.0]).expand(1, 2, 1, 6)
    weight = small_weight(pixels, 256.0) * (pixels > 0)
    expected = 2 * (4 * 1 + 2 * 2 + 3 + 3 + 0) / (4 + 2 + 1 + 1 + 4)
    assert offset_error(offsets, wanted, weight).item() == pytest.approx(expected)


def test_offset_errors_count_by_the_size_of_the_object() -> None:
    pixels = torch.tensor([[[0, 4, 64, 1024, 9999]]], dtype=torch.int32)
    cells = torch.zeros(1, 3, 1, 5)
    wanted = torch.tensor([50.0, 1.0, 2.0, 8.0, 16.0]).expand(1, 2, 1, 5)
    targets = BatchTargets(torch.zeros(1, 16, 1, 5, dtype=torch.int64), cells, cells > 0, wanted, pixels)
    maps = RawMaps(torch.zeros(1, 6 * 16, 1, 5), cells, torch.zeros(1, 2, 1, 5))
    plain, relative = (
        PanopticLoss(LossConfig(offsets=1.0, offset_area=area))(maps, targets).offsets.item() for area in (0.0, 4096.0)
    )
    assert plain == pytest.approx(2 * (1 + 2 + 8 + 16) / 4)
    assert relative == pytest.approx(2 * (16 * 1 + 8 * 2 + 2 * 8 + 1 * 16) / (16 + 8 + 2 + 1))


@pytest.mark.parametrize("seed", range(5))
def test_the_lovasz_loss_is_the_integral_of_one_minus_iou_over_the_level_sets_of_the_error(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    probability = (3 * torch.randn(40, 4, generator=random)).softmax(1)
    classes = torch.randint(0, 3, (40,), generator=random)  # the fourth class does not occur
    terms = []
    for number in classes.unique():
        right = classes == number
        error = (right.float() - probability[:, number]).abs()
        levels = sorted({0.0, *error.tolist()})
        integral = 0.0
        for low, high in pairwise(levels):
            wrong = error > low  # the same pixels for every level between the two
            predicted = right ^ wrong
            integral += (high - low) * float(1 - (right & predicted).sum() / (right | predicted).sum())
        terms.append(integral)
    assert lovasz_softmax(probability, classes).item() == pytest.approx(sum(terms) / len(terms), abs=1e-5)


def test_the_lovasz_loss_leaves_out_pixels_that_may_have_several_classes() -> None:
    logits = torch.randn(1, 6 * 16, 2, 2, requires_grad=True)
    codes, everywhere = torch.full((1, 16, 2, 2), 1), torch.ones(1, 2, 2)
    codes[..., 1] = ROAD_OR_MARKING
    plain, both = (PanopticLoss(LossConfig(lovasz=share)).semantic(logits, codes, everywhere) for share in (0.0, 1.0))
    (gradient,) = torch.autograd.grad(both - plain, logits)
    assert gradient[..., 0].abs().sum() > 0
    assert gradient[..., 1].abs().sum() == 0
    nowhere = PanopticLoss(LossConfig(lovasz=1.0)).semantic(logits, torch.full_like(codes, VOID), everywhere)
    nowhere.backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_void_pixels_have_no_gradient() -> None:
    logits = torch.randn(1, 6 * 16, 2, 2, requires_grad=True)
    codes = torch.full((1, 16, 2, 2), VOID)
    codes[:, :, 0, 0] = 3
    PanopticLoss(LossConfig()).semantic(logits, codes, torch.ones(1, 2, 2)).backward()
    assert logits.grad is not None
    assert logits.grad[..., 0, 0].abs().sum() > 0
    assert logits.grad[..., 1:, :].abs().sum() == 0


def test_focal_loss_prefers_the_right_peak_and_ignores_the_unknown() -> None:
    heat = torch.zeros(1, 1, 8, 8)
    heat[0, 0, 3, 4] = 1.0
    known = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    right, wrong = torch.full((1, 1, 8, 8), -6.0), torch.full((1, 1, 8, 8), -6.0)
    right[0, 0, 3, 4] = 6.0
    wrong[0, 0, 6, 1] = 6.0
    assert focal(right, heat, known) < 0.01 < focal(wrong, heat, known)
    known[0, 0, 6, 1] = False
    right[0, 0, 6, 1] = 6.0
    assert focal(right, heat, known) < 0.01


def test_the_focal_loss_is_centernet_s() -> None:
    random = np.random.default_rng(0)
    shape = (2, 3, 4, 5)
    logits, heat, known = random.normal(0, 2, shape), random.random(shape), random.random(shape) < 0.8
    heat[random.random(shape) < 0.1] = 1.0
    terms = []
    for p, y in zip(1 / (1 + np.exp(-logits[known])), heat[known], strict=True):
        terms.append((1 - p) ** 2 * np.log(p) if y == 1 else (1 - y) ** 4 * p**2 * np.log(1 - p))
    found = focal(torch.from_numpy(logits), torch.from_numpy(heat), torch.from_numpy(known))
    assert found.item() == pytest.approx(-sum(terms) / np.count_nonzero(heat == 1))


def test_half_of_the_semantic_loss_is_that_of_the_worst() -> None:
    random = torch.Generator().manual_seed(0)
    classes = (1.0, 2.0, 4.0, 1.5, 3.0, 5.0)
    logits = torch.randn(2, 6 * 16, 3, 5, generator=random)
    asked = {3: (3,), 2: (2,), ROAD_OR_MARKING: (1, 2), VOID: ()}
    codes = torch.tensor(list(asked))[torch.randint(0, 4, (2, 16, 3, 5), generator=random)]
    cells = 1 + 3 * torch.rand(2, 3, 5, generator=random)
    loss = []
    for n, s, y, x in np.ndindex(2, 16, 3, 5):
        members = list(asked[int(codes[n, s, y, x])])
        probability = logits.view(2, 6, 16, 3, 5)[n, :, s, y, x].softmax(0)[members].sum()
        weight = np.mean([classes[number] for number in members]) if members else 0.0
        loss.append(float(-probability.log() * weight * cells[n, y, x]) if members else 0.0)
    worst = sorted(loss)[-int(0.25 * len(loss)) :]
    expected = (sum(loss) / int((codes != VOID).sum()) + sum(worst) / len(worst)) / 2
    found = PanopticLoss(LossConfig(classes=classes, hard=0.25)).semantic(logits, codes, cells)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_view_keeps_image_and_labels_together() -> None:
    sample = scene()
    how = Augmentation(width=128, height=96, zoom=(0.2, 0.3), blur=0.0, noise=0.0)
    sample = replace(sample, image=np.where(sample.codes[..., None] == 3, 255, 0).repeat(3, 2).astype(np.uint8))
    seen = 0
    for seed in range(20):
        shown = view(sample, how, np.random.default_rng(seed))
        assert shown.image.shape == (96, 128, 3) and shown.codes.shape == shown.instances.shape == (96, 128)
        vehicle = cv2.erode((shown.codes == 3).astype(np.uint8), np.ones((3, 3))) > 0
        other = cv2.erode((shown.codes < 3).astype(np.uint8), np.ones((3, 3))) > 0
        if vehicle.any() and other.any():
            seen += 1
            assert shown.image[vehicle].mean() > shown.image[other].mean() + 50
    assert seen >= 10


@pytest.mark.parametrize("shrunk", [1, 2])
def test_a_view_as_large_as_the_picture_is_the_picture_or_its_mirror_image(shrunk: int) -> None:
    width, height = 640 // shrunk, 96 // shrunk
    labels = np.random.default_rng(1).integers(1, 200, (height, width)).repeat(shrunk, 0).repeat(shrunk, 1)
    sample = Sample(np.zeros((96, 640, 3), np.uint8), labels.astype(np.uint8), labels.astype(np.uint16), np.arange(200))
    how = Augmentation(width=width, height=height, zoom=(1 / shrunk, 1 / shrunk), stretch=0.0, tilt=0.0)
    expected = labels[::shrunk, ::shrunk]
    flips = set()
    for seed in range(20):
        shown = view(sample, how, np.random.default_rng(seed))
        flipped = not np.array_equal(shown.codes, expected)
        assert np.array_equal(shown.codes, expected[:, ::-1] if flipped else expected)
        assert np.array_equal(shown.instances, shown.codes)
        flips.add(flipped)
    assert flips == {False, True}


def write_folder(folder: Path, names: list[str]) -> None:
    sample = scene()
    for kind in ("images", "labels", "labels_orig"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), sample.image)
        cv2.imwrite(str(folder / "labels" / f"{name}.png"), np.minimum(sample.codes, 4))
        cv2.imwrite(str(folder / "labels_orig" / f"{name}.png"), np.where(sample.codes == 4, 10, 0).astype(np.uint8))


def test_held_out_frames_are_never_loaded(tmp_path: Path) -> None:
    write_folder(tmp_path / "camvid11/train", ["a", "b", "c", "d"])
    write_folder(tmp_path / "camvid11/val", ["b"])
    write_folder(tmp_path / "camvid32/val", ["c"])
    write_folder(tmp_path / "camvid32/train", ["d"])
    loaded = load_set("camvid11", tmp_path)
    assert len(loaded) == 1
    assert set(np.unique(loaded[0].codes)) == {0, 2, 3, ROAD_OR_MARKING, 5}, "10 is Bicyclist there"


def test_of_the_labelled_sequence_only_its_beginning_is_learnt(tmp_path: Path) -> None:
    names = [f"{number:03d}" for number in range(CAMSEQ_LEARNT + 15)]
    write_folder(tmp_path / "camvid32/val", names)
    write_folder(tmp_path / "camvid11/train", [*names, "other"])
    write_folder(tmp_path / "camvid11/val", ["x"])
    write_folder(tmp_path / "camvid32/train", ["y"])
    assert len(load_set("camseq", tmp_path)) == CAMSEQ_LEARNT
    assert len(load_set("camvid11", tmp_path)) == 1, "none of it under another name"


def test_unknown_set_and_missing_folder_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there are .*camvid32"):
        load_set("camvid", tmp_path)
    with pytest.raises(ConfigError, match="point data_root at"):
        load_set("kitti", tmp_path)
    write_folder(tmp_path / "camvid32/train", ["a"])
    with pytest.raises(ConfigError, match=r"camvid32/val/images do not exist; point data_root at"):
        load_set("camvid32", tmp_path)
    with pytest.raises(ConfigError, match=r"python -m drive_seg\.network\.render"):
        load_set("sim", tmp_path)


def write_pair(root: Path, name: str, truth: np.ndarray, folder: str = "truth") -> None:
    (root / "images").mkdir(exist_ok=True)
    (root / folder).mkdir(exist_ok=True)
    image = np.zeros((*truth.shape[:2], 3), np.uint8)
    cv2.imwrite(str(root / "images" / f"{name}.png"), image)
    cv2.imwrite(str(root / folder / f"{name}.png"), truth)


def test_own_folders_teach_what_their_label_map_says(tmp_path: Path) -> None:
    ids = np.full((64, 64), 11, np.uint16)  # building
    ids[40:] = 7  # road, markings painted in
    ids[44:60, 4:30] = 26_000  # car
    ids[44:60, 34:40] = 24_001  # person
    ids[44:60, 42:50] = 24  # a group of people
    ids[44:60, 52:60] = 33_000  # bicycle: nobody says whether it is ridden
    ids[:4] = 3  # out of the region of interest
    write_pair(tmp_path, "a_leftImg8bit", ids)
    (tmp_path / "truth" / "a_leftImg8bit.png").rename(tmp_path / "truth" / "a_gtFine_instanceIds.png")
    folder = FolderConfig("images", "truth", "cityscapes")
    sample = load_set("city", tmp_path, {"city": folder})[0]
    at = {
        "building": (20, 2),
        "road": (62, 2),
        "car": (50, 10),
        "person": (50, 36),
        "group": (50, 45),
        "bicycle": (50, 55),
    }
    codes = {name: int(sample.codes[place]) for name, place in at.items()}
    assert codes == {"building": 0, "road": ROAD_OR_MARKING, "car": 3, "person": 4, "group": 4, "bicycle": VOID}
    assert sample.codes[0, 0] == VOID
    instances = {name: int(sample.instances[place]) for name, place in at.items()}
    assert sample.classes[instances["car"]] == 3 and sample.classes[instances["person"]] == 4
    assert instances["group"] == UNKNOWN_INSTANCE and instances["building"] == instances["bicycle"] == 0
    assert len(sample.classes) == 3


def test_own_folders_without_objects_leave_them_open(tmp_path: Path) -> None:
    labels = np.zeros((64, 96), np.uint8)
    labels[30:60, 10:60] = 3
    write_pair(tmp_path, "a", labels)
    folder = FolderConfig("images", "truth", "camvid", "labels")
    with pytest.raises(ConfigError, match="label map labels"):
        load_set("own", tmp_path, {"own": folder})
    (tmp_path / "truth").rename(tmp_path / "labels")
    folder = FolderConfig("images", ".", "labels")
    assert load_set("own", tmp_path, {"own": folder})[0].instances[40, 20] == UNKNOWN_INSTANCE
    guessed = load_set("own", tmp_path, {"own": replace(folder, guess_instances=True)})[0]
    assert guessed.classes[guessed.instances[40, 20]] == 3


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (FolderConfig("nowhere", "."), "no image"),
        (FolderConfig("images", "nowhere"), "does not exist"),
        (FolderConfig("images", "drive.mcap"), r"drive\.mcap is a bag; training takes folders only"),
        (FolderConfig("images", ".", "pascal"), "format must be one of"),
        (FolderConfig("images", ".", "labels", without=("images",)), "nothing is left"),
    ],
)
def test_own_folders_say_what_is_wrong(tmp_path: Path, folder: FolderConfig, message: str) -> None:
    write_pair(tmp_path, "a", np.zeros((8, 8), np.uint8), "labels")
    (tmp_path / "drive.mcap").touch()
    with pytest.raises(ConfigError, match=message):
        load_set("own", tmp_path, {"own": folder})


def test_an_own_set_called_sim_is_below_the_data_root_as_any_other(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.zeros((8, 8), np.uint8), "labels")
    own = {"sim": FolderConfig("images", ".", "labels")}
    assert len(open_sets(TrainConfig(sets={"sim": 1.0}, folders=own, data_root=tmp_path))["sim"]) == 1


def test_a_picture_is_learnt_and_scored_as_it_is_stored_not_as_exif_turns_it(tmp_path: Path) -> None:
    """Truth, ``run`` and the node mean the sensor's pixels."""
    image, label = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    image[:16], label[:16] = 255, 1
    write_pair(tmp_path, "a", label, "labels")
    (tmp_path / "images" / "a.png").unlink()
    plain = cv2.imencode(".jpg", image)[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 3, 0) + b"\0\0\0\0"
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    (tmp_path / "images" / "a.jpg").write_bytes(turned)
    assert cv2.imread(str(tmp_path / "images" / "a.jpg"))[0, 0, 0] < 99, "the tag works"
    sample = load_set("own", tmp_path, {"own": FolderConfig("images", ".", "labels")})[0]
    scored, truth = next(labelled_folder(tmp_path))
    assert sample.image[sample.codes == 1].min() > 99 and scored[truth == 1].min() > 99


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.zeros((8, 8), np.uint8), "labels")
    with pytest.raises(ConfigError, match=r"images/a\.png and .*labels/a\.png have the same name"):
        load_set("own", tmp_path, {"own": FolderConfig(".", ".", "labels")})


def test_an_image_without_truth_is_an_error_with_its_name(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.zeros((8, 8), np.uint8), "labels")
    cv2.imwrite(str(tmp_path / "images" / "lonely.png"), np.zeros((8, 8, 3), np.uint8))
    samples = load_set("own", tmp_path, {"own": FolderConfig("images", ".", "labels")})
    assert len(samples) == 2
    with pytest.raises(ConfigError, match="lonely"):
        samples[1]


def test_a_configuration_names_own_folders(tmp_path: Path) -> None:
    text = "sets: {mine: 1.0}\nfolders: {mine: {images: a, truth: b, format: kitti, guess_instances: true}}\n"
    (tmp_path / "c.yaml").write_text(text)
    assert load_train_config(tmp_path / "c.yaml").folders["mine"] == FolderConfig("a", "b", "kitti", "", True)
    (tmp_path / "c.yaml").write_text(text.replace("true", "1"))
    with pytest.raises(ConfigError, match="guess_instances"):
        load_train_config(tmp_path / "c.yaml")


def tiny_config(tmp_path: Path, steps: int) -> TrainConfig:
    frames = tmp_path / "frames"
    if not frames.exists():
        frames.mkdir()
        samples = [scene(seed) for seed in range(8)]
        panoptic = [
            np.where(s.instances > 0, s.classes.astype(int)[s.instances] * 1000 + s.instances, s.codes) for s in samples
        ]
        np.save(frames / "images.npy", np.stack([s.image for s in samples]))
        np.save(frames / "panoptic.npy", np.stack(panoptic).astype(np.uint16))
    how = Augmentation(width=96, height=64, zoom=(0.15, 0.15), stretch=0.0, tilt=0.0, blur=0, noise=0, grey=0)
    return TrainConfig(
        out_dir=tmp_path / f"run{steps}", sim_folder=frames, sets={"sim": 1.0}, steps=steps, batch=4, rate=5e-3,
        warmup=5, average=0.9, workers=0, threads=1, save_every=1000, network=TINY, augmentation=how,
    )  # fmt: skip


def test_training_learns_resumes_and_exports(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, 60)
    seen: list[float] = []
    checkpoint = train(config, lambda state: seen.append(state.semantic))
    assert len(seen) == 3 and seen[-1] < 0.85 * seen[0]

    state = torch.load(checkpoint, weights_only=True)
    assert state["step"] == 60
    train(replace(config, steps=80), lambda state: seen.append(state.step))
    assert seen[3:] == [80], "goes on at step 60"

    sidecar = export_onnx(checkpoint, tmp_path, "tiny", ModelCard("made up", "Apache-2.0"), size=(96, 64))
    model = load_model(sidecar)
    assert (model.width, model.height, model.training_data) == (96, 64, "made up")
    session = pytest.importorskip("onnxruntime").InferenceSession(
        str(model.graph("fp32")), providers=["CPUExecutionProvider"]
    )
    images = np.stack([scene(100).image, scene(101).image])
    net = PanopticNet(TINY).eval()
    net.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    with torch.no_grad():
        expected = [out.numpy() for out in DeployedNet(net).eval()(torch.from_numpy(images))]
    semantic, confidence, centers, offsets = session.run(None, {"image": images})
    assert (semantic == expected[0]).mean() > 0.999
    assert np.abs(confidence.astype(int) - expected[1]).mean() < 0.1
    assert np.allclose(offsets, expected[3], atol=1e-2)
    assert ((centers > 0.05) == (expected[2] > 0.05)).mean() > 0.999


def test_lower_precisions_say_the_same(tmp_path: Path) -> None:
    checkpoint = train(replace(tiny_config(tmp_path, 150), average=0.5))
    scenes = [scene(seed) for seed in range(100, 112)]
    images = tmp_path / "images"
    images.mkdir()
    for number, sample in enumerate(scenes):
        cv2.imwrite(str(images / f"{number}.png"), sample.image[..., ::-1])
    model = load_model(
        export_onnx(checkpoint, tmp_path, "tiny", size=(96, 64), precisions=PRECISIONS, calibration=[images])
    )
    assert model.precisions == PRECISIONS
    masks = {}
    for precision in PRECISIONS:
        tensors = onnx.load(str(model.graph(precision))).graph
        kernels = {tensor.data_type for tensor in tensors.initializer if len(tensor.dims) == 4}
        wanted = {"fp32": {onnx.TensorProto.FLOAT}, "fp16": {onnx.TensorProto.FLOAT16}}.get(precision)
        assert kernels == wanted if wanted else onnx.TensorProto.INT8 in kernels
        with open_pipeline(tmp_path / "tiny.yaml", "onnxruntime", precision, cache_dir=None) as pipeline:
            masks[precision] = np.stack([pipeline(sample.image).mask for sample in scenes])
    assert len(np.unique(masks["fp32"])) >= 3, "a network that says nothing agrees with everything"
    assert (masks["fp16"] == masks["fp32"]).mean() > 0.995
    assert (masks["int8"] == masks["fp32"]).mean() > 0.97


def test_calibration_images_are_taken_from_all_of_a_folder(tmp_path: Path) -> None:
    for number in range(47):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), np.full((64, 96, 3), 5 * number, np.uint8))
    taken = [int(image[32, 48, 0]) // 5 for image in calibration_images([tmp_path], (96, 64))]
    assert len(taken) == 24 and (taken[0], taken[-1]) == (0, 46)
    assert set(np.diff(taken)) <= {1, 2}


def test_int8_says_what_it_needs(tmp_path: Path) -> None:
    net = PanopticNet(TINY)
    with pytest.raises(ModelError, match="--calibration"):
        write_model(net, tmp_path / "m.yaml", ModelCard(), DRIVING, (96, 64), ("int8",))
    with pytest.raises(ModelError, match="no calibration image"):
        write_model(net, tmp_path / "m.yaml", ModelCard(), DRIVING, (96, 64), ("int8",), [tmp_path])
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "image.png").write_bytes(b"no image")
    with pytest.raises(ModelError, match="can be read"):
        write_model(net, tmp_path / "m.yaml", ModelCard(), DRIVING, (96, 64), ("int8",), [tmp_path / "damaged"])
    assert not list(tmp_path.glob("m.*")), "a model that has the name already stays as it is"


def test_an_export_says_how_far_it_is_and_prints_nothing_but_its_object(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "net.pt", PanopticNet(TINY))
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        cv2.imwrite(str(images / f"{number}.png"), scene(number).image[..., ::-1])
    place = ("--name", "x", "-o", tmp_path, "--width", 96, "--height", 64)
    lower = ("--precision", "fp16", "--precision", "int8", "--calibration", images)
    done = drive_seg("export", checkpoint, *place, *lower, "--json")
    assert done.stdout == json.dumps({"model": str(tmp_path / "x.yaml")}) + "\n"
    said = [line.rpartition(",")[0] for line in done.stderr.splitlines() if line.startswith("exporting: ")]
    assert said == [f"exporting: {phase}" for phase in ("calibration images", "fp32", "fp16", "int8 0/3")]


def test_batch_norms_are_folded_exactly(tmp_path: Path) -> None:
    encoder = LiteEncoder()
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, torch.Tensor] = {}
    layers = [layer for layer in encoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    for number, layer in enumerate(layers):
        norm = torch.nn.BatchNorm2d(layer.out_channels, eps=1e-3)
        for name, value in norm.state_dict().items():
            spread = torch.rand(value.shape, generator=generator) + 0.5
            weights[f"{number}.{name}"] = spread if value.is_floating_point() else value
        weights = {**weights, f"{number}.kernel": torch.randn(layer.weight.shape, generator=generator)}
    order = ("kernel", "weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    published = {f"{n}.{part}": weights[f"{n}.{part}"] for n in range(len(layers)) for part in order}
    file = tmp_path / "lite.pth"
    torch.save({**published, "_fc.bias": torch.zeros(3)}, file)
    encoder.load_imagenet(file)
    for number, layer in enumerate(layers):
        kernel, scale, shift, mean, variance, _ = (published[f"{number}.{part}"] for part in order)
        x = torch.randn((1, layer.in_channels, 9, 9), generator=generator)
        raw = torch.nn.functional.conv2d(x, kernel, None, layer.stride, layer.padding, 1, layer.groups)
        expected = torch.nn.functional.batch_norm(raw, mean, variance, scale, shift, False, 0.0, 1e-3)
        torch.testing.assert_close(layer(x), expected, rtol=1e-3, atol=1e-3)
    torch.save({"_fc.bias": torch.zeros(3)}, file)
    with pytest.raises(ConfigError, match="EfficientNet-Lite0"):
        encoder.load_imagenet(file)


def test_pasted_things_are_whole_instances_of_their_own() -> None:
    donor = scene(0, 128, 160)
    grown = replace(donor, instances=np.zeros_like(donor.instances), classes=np.array([0, 4, 3], np.uint8))
    grown.instances[20:80, 30:80] = 1
    grown.instances[60:127, 100:160] = 2  # touches the border: cut off, so it is no cut-out
    cutouts = cut_out(InMemory([grown]))
    assert [(c.thing, c.mask.shape, bool(c.mask.all())) for c in cutouts] == [(4, (60, 50), True)]
    sample = scene(3, 192, 256)
    before = sample.instances.copy()
    seen = set()
    for seed in range(20):
        result = paste(sample, cutouts, 3, np.random.default_rng(seed))
        added = range(len(sample.classes), len(result.classes))
        seen.add(len(added))
        for instance in added:
            mine = result.instances == instance
            assert result.classes[instance] == 4 and (result.codes[mine] == 4).all()
        untouched = np.isin(result.instances, added, invert=True)
        for name in ("image", "codes", "instances"):
            np.testing.assert_array_equal(getattr(result, name)[untouched], getattr(sample, name)[untouched])
    assert {1, 2, 3} <= seen
    np.testing.assert_array_equal(sample.instances, before)


def test_frozen_stages_do_not_learn() -> None:
    encoder = LiteEncoder()
    encoder.freeze(2)
    learning = {name.split(".")[0] + name.split(".")[1] for name, p in encoder.named_parameters() if p.requires_grad}
    assert learning == {f"stages{number}" for number in range(2, 7)}


def test_the_same_configuration_gives_the_same_weights(tmp_path: Path) -> None:
    first = train(tiny_config(tmp_path, 3))
    weights = torch.load(first, weights_only=True)["average"]
    first.unlink()
    again = torch.load(train(tiny_config(tmp_path, 3)), weights_only=True)["average"]
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_export_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        export_onnx(tmp_path / "missing.pt", tmp_path, "m")
    torch.save({"something": 1}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="not a checkpoint"):
        export_onnx(tmp_path / "other.pt", tmp_path, "m")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="not a checkpoint of drive_seg train: it has a list"):
        export_onnx(tmp_path / "list.pt", tmp_path, "m")
    torch.save({"network": Path("more than weights")}, tmp_path / "more.pt")
    more, other = (tmp_path / "more.pt").read_bytes(), (tmp_path / "other.pt").read_bytes()
    for content in (b"hello\n", b"garbage\n", b"", other[:100], more):
        (tmp_path / "damaged.pt").write_bytes(content)
        with pytest.raises(ModelError, match=r"cannot read the checkpoint .*damaged\.pt: ") as caught:
            export_onnx(tmp_path / "damaged.pt", tmp_path, "m")
        said = str(caught.value)
        for advice in ("weights_only", "Weights only", "\x1b"):
            assert advice not in said, "nobody is told to have it run"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "unknown stepz"),
        ("steps: many", "steps must be int"),
        ("steps: 0", "steps must be at least 1, got 0"),
        ("augmentation: {width: 100}", "multiples of 32"),
        ("loss: {classes: [1, 1]}", "a weight per class"),
        ("network: [1]", "expected a mapping"),
        ("sets: {}", "at least one data set"),
        ("augmentation: {zoom: [1.4]}", r"augmentation: zoom must have 2 values, got \[1.4\]"),
        ("held_out: {every: 100}", "held_out.every is 100 without anything to validate on"),
        ("held_out: {network: [640, 384, 3]}", "held_out: network must have 2 values"),
        ("held_out: {network: [640, 100]}", r"held_out.network must be multiples of 32, got \(640, 100\)"),
        ("held_out: {drives: -1}", "held_out.drives must be a whole number, 0 or more; got -1"),
        ("network: {things: [3, 4]}", r"network must have 6 classes with things \(3, 4, 5\), .* got 6 with \(3, 4\)"),
        ("{network: {classes: 7}, loss: {classes: [1, 1, 1, 1, 1, 1, 1]}}", "network must have 6 classes .* got 7"),
        ("rate: .nan", "rate must be a finite number, 0 or more; got nan"),
        ("average: 1.5", r"average must be a finite number, 0..1; got 1.5"),
        ("seed: -1", "seed must be a whole number, 0 or more; got -1"),
        ("workers: -1", "workers must be"),
        ("sets: {sim: .nan}", "sets.sim must be a finite number"),
        ("loss: {hard: 1.5}", r"loss.hard must be a finite number, 0..1; got 1.5"),
        ("loss: {subpixels: 0}", r"loss.subpixels must be a whole number, 1..16; got 0"),
        ("loss: {classes: [1, 1, -1, 1, 1, 1]}", "loss.classes must be a finite number, 0 or more; got -1"),
        ("loss: {small: -5}", "loss.small must be"),
        ("augmentation: {width: 0}", "augmentation.width must be a whole number, 1 or more; got 0"),
        ("augmentation: {zoom: [0, 1]}", r"augmentation.zoom must be two factors above 0, the smaller first, got \(0"),
        ("augmentation: {zoom: [1.7, 0.75]}", "augmentation.zoom must be"),
        ("augmentation: {stretch: -1}", "augmentation.stretch must be"),
        ("augmentation: {blur: 2}", r"augmentation.blur must be a finite number, 0..1; got 2"),
    ],
)
def test_training_configuration_errors_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_train_config(tmp_path / "c.yaml")


SHIPPED = sorted((Path(__file__).parents[1] / "config" / "train").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_training_configurations_load(path: Path) -> None:
    config = load_train_config(path, steps=7)
    assert config.steps == 7
    assert (set(config.sets) == {"sim"}) == (config.license == "Apache-2.0")
    assert set(config.taught) <= set(config.sets)
    # The last part of the shipped model, and what goes on from it, have its network; earlier parts and `simulator` one
    # that grows into it.
    grown = {"driving_" + part for part in ("wide", "more", "city", "cities", "streets", "gpu")} | {"finetune"}
    assert config.network == (NetworkConfig() if path.stem in grown else NetworkConfig(decoder=96, refine=False))
