"""The overlay, by what must be true of its pixels."""

from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from drive_seg.frame import Box, CameraImage, Extent, Frame, Instance, Lane, PanopticResult, StageTimes
from drive_seg.labels import DRIVING, Label, LabelSet, mask_of
from drive_seg.overlay import TINT, draw_overlay, shade

WIDTH, HEIGHT = 1280, 720
FRAME = Frame(CameraImage.from_rgb(np.zeros((2, 2, 3), np.uint8)))
CAR, NEIGHBOUR, WALKER = 3001, 3002, 4001
BOXES = {CAR: Box(300, 300, 200, 120), NEIGHBOUR: Box(500, 300, 200, 120), WALKER: Box(900, 250, 60, 200)}
ROAD = Box(0, 500, 1280, 100)
VOID = Box(1000, 620, 100, 20)


def fill(image: NDArray[np.generic], box: Box, value: int) -> None:
    image[box.y : box.y + box.height, box.x : box.x + box.width] = value


def result(factor: int = 1) -> PanopticResult:
    """Two touching cars, a pedestrian, a road and a void; maps at 1 / factor of the native size."""
    panoptic = np.zeros((HEIGHT, WIDTH), np.uint16)
    fill(panoptic, ROAD, 1)
    fill(panoptic, VOID, 65535)
    instances = []
    for value, box in BOXES.items():
        fill(panoptic, box, value)
        label = DRIVING[value // 1000]
        instances.append(Instance(value, label.id, label.name, 0.87, box, box.width * box.height))
    panoptic = np.ascontiguousarray(panoptic[::factor, ::factor])
    return PanopticResult(FRAME, mask_of(panoptic), panoptic, tuple(instances), (WIDTH, HEIGHT))


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def near(box: Box, margin: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The box's inside without ``margin`` pixels all round."""
    return image[box.y + margin : box.y + box.height - margin, box.x + margin : box.x + box.width - margin]


def test_background_and_void_keep_the_camera_s_colours_and_the_rest_is_tinted(rgb: NDArray[np.uint8]):
    drawn = draw_overlay(rgb, result(), DRIVING)
    touched = np.any(drawn != rgb, axis=2)
    for box in BOXES.values():  # a label may stand above or below its box
        fill(touched, Box(box.x, box.y - 30, max(box.width, 160), box.height + 60), 0)
    fill(touched, ROAD, 0)
    assert not touched.any()
    expected = (1 - TINT) * near(ROAD, 0, rgb) + TINT * np.array(DRIVING[1].color)
    assert np.abs(near(ROAD, 0, drawn) - expected).max() <= 1


@pytest.mark.parametrize("factor", [1, 2])
def test_lane_boundaries_are_lines_of_their_own_colour(rgb: NDArray[np.uint8], factor: int):
    def boundary(order: int, x: float, confidence: float = 1.0) -> Lane:
        return Lane(order, np.array([[x, 715], [x - 100, 440]], np.float32), confidence)

    lanes = (boundary(-1, 400), boundary(1, 800), boundary(2, 1100), boundary(3, 1250, 0.25))
    drawn = draw_overlay(rgb, dataclasses.replace(result(factor), lanes=lanes), DRIVING)
    plain = draw_overlay(rgb, result(factor), DRIVING)
    own, other = drawn[640, 373], drawn[640, 1073]
    assert tuple(drawn[640, 773]) == tuple(own) != tuple(other)
    assert own[1] > max(own[0], own[2]) and other[2] > other[0]
    assert drawn[640, 1223].sum() < other.sum(), "a boundary that is less sure is fainter"
    changed = np.flatnonzero((drawn != plain).any(axis=2)[640])
    assert 4 <= changed.size <= 4 * 9 and np.abs(changed[:, None] - [373, 773, 1073, 1223]).min(axis=1).max() <= 4


def brightness(color: NDArray[np.uint8]) -> float:
    """What the eye sees of an sRGB colour, 0..1, whatever colours it can tell apart (WCAG's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color / 255]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    dark, light = sorted((brightness(one), brightness(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("order", [-1, 2])
def test_lane_boundaries_stand_out_from_paint_by_brightness_alone(order: int):
    painted = np.full((HEIGHT, WIDTH), 2, np.uint16)
    lane = Lane(order, np.array([[400, 715], [300, 440]], np.float32))
    shown = PanopticResult(FRAME, mask_of(painted), painted, (), (WIDTH, HEIGHT), lanes=(lane,))
    row = draw_overlay(np.full((HEIGHT, WIDTH, 3), 200, np.uint8), shown, DRIVING)[640]
    for edge in (row[366:373], row[374:381]):
        darkest = min(edge, key=brightness)
        assert contrast(darkest, row[373]) > 3 and contrast(darkest, row[300]) > 3


def test_every_instance_has_its_own_shade_inside_and_a_solid_outline(rgb: NDArray[np.uint8]):
    drawn = draw_overlay(rgb, result(), DRIVING)
    for value, box in BOXES.items():
        color = shade(DRIVING[value // 1000].color, value % 1000)
        middle = Box(box.x, box.y + 30, box.width, box.height - 60)  # clear of labels
        expected = (1 - TINT) * near(middle, 4, rgb) + TINT * np.array(color)
        assert np.abs(near(middle, 4, drawn) - expected).max() <= 1
        for column in (box.x, box.x + 1, box.x + box.width - 1):  # also between the two cars that touch
            assert np.all(drawn[middle.y : middle.y + middle.height, column] == color)


def test_an_instance_is_named_on_a_backing_of_its_colour(rgb: NDArray[np.uint8]):
    drawn = draw_overlay(rgb, result(), DRIVING)
    for value, box in BOXES.items():
        color = np.array(shade(DRIVING[value // 1000].color, value % 1000))
        above = drawn[box.y - 10, box.x : box.x + 60].astype(int)
        assert np.sum(np.all(above == color, axis=1)) > 10, "backing"
        assert np.sum(np.abs(above - color).max(axis=1) > 60) > 3, "letters"


def test_labels_never_cover_each_other(rgb: NDArray[np.uint8]):
    """Forty cars in one place: whatever is named has its whole backing."""
    panoptic = np.zeros((HEIGHT, WIDTH), np.uint16)
    instances = []
    for k in range(40):
        box = Box(400 + 7 * (k % 8), 300 + 9 * (k // 8), 80, 60)
        fill(panoptic, box, 3001 + k)
        instances.append(Instance(3001 + k, 3, "vehicle", 0.5, box, 4800 - k))
    crowd = PanopticResult(FRAME, mask_of(panoptic), panoptic, tuple(instances), (WIDTH, HEIGHT))
    drawn = draw_overlay(np.zeros_like(rgb), crowd, DRIVING)
    first = instances[0]
    edge = drawn[first.box.y - 1, first.box.x : first.box.x + 60]
    assert np.all(edge == shade(DRIVING[3].color, 1)), "the largest keeps its label"


def test_tiny_instances_are_outlined_but_not_named(rgb: NDArray[np.uint8]):
    panoptic = np.zeros((HEIGHT, WIDTH), np.uint16)
    box = Box(600, 300, 12, 9)
    fill(panoptic, box, CAR)
    one = (Instance(CAR, 3, "vehicle", 0.9, box, 108),)
    drawn = draw_overlay(rgb, PanopticResult(FRAME, mask_of(panoptic), panoptic, one, (WIDTH, HEIGHT)), DRIVING)
    ys, xs = np.nonzero(np.any(drawn != rgb, axis=2))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (300, 308, 600, 611)


def test_maps_at_network_resolution_give_the_same_picture(rgb: NDArray[np.uint8]):
    np.testing.assert_array_equal(draw_overlay(rgb, result(2), DRIVING), draw_overlay(rgb, result(), DRIVING))


def test_a_map_whose_edge_cells_hold_more_than_the_image_is_drawn_in_its_place():
    cells = np.uint8([1, 2, 1, 255, 0, 2])
    coarse = np.repeat(cells[None], 4, axis=0)
    shown = PanopticResult(FRAME, coarse, coarse.astype(np.uint16), (), (40, 32), extent=Extent(0.5, 0, 5, 4))
    fine = np.repeat(np.repeat(cells, [4, 8, 8, 8, 8, 4])[None], 32, axis=0)
    expected = PanopticResult(FRAME, fine, fine.astype(np.uint16), (), (40, 32))
    image = np.full((32, 40, 3), 90, np.uint8)
    np.testing.assert_array_equal(draw_overlay(image, shown, DRIVING), draw_overlay(image, expected, DRIVING))


def test_it_draws_into_what_it_is_given_and_never_into_the_image(rgb: NDArray[np.uint8]):
    expected = draw_overlay(rgb, result(), DRIVING, StageTimes(inference=9.0))
    rgb.setflags(write=False)
    out = np.empty_like(rgb)
    assert draw_overlay(rgb, result(), DRIVING, StageTimes(inference=9.0), out) is out
    np.testing.assert_array_equal(out, expected)
    in_place = rgb.copy()
    draw_overlay(in_place, result(), DRIVING, StageTimes(inference=9.0), in_place)
    np.testing.assert_array_equal(in_place, expected)


def bar_widths(drawn: NDArray[np.uint8]) -> list[int]:
    """Lengths of the runs of one colour in the strip's bar, the dark rest excluded."""
    row = drawn[HEIGHT - 25].astype(int)
    edges = np.flatnonzero(np.any(np.diff(row, axis=0) != 0, axis=1)) + 1
    return [run.shape[0] for run in np.split(row, edges) if run[0].max() > 60]


def test_bars_are_to_scale():
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = draw_overlay(black, result(), DRIVING, StageTimes(decode=2.0, inference=10.0, publish=4.0))
    per_ms = WIDTH * 30 / 1000
    np.testing.assert_allclose(bar_widths(drawn), [2 * per_ms, 10 * per_ms, 4 * per_ms], atol=1)
    slow = draw_overlay(black, result(), DRIVING, StageTimes(inference=150.0, postprocess=50.0))
    np.testing.assert_allclose(bar_widths(slow), [0.75 * WIDTH, 0.25 * WIDTH], atol=1)


def test_the_rate_is_written_when_it_is_known(rgb: NDArray[np.uint8]):
    times = StageTimes(inference=9.0)
    without = draw_overlay(rgb, result(), DRIVING, times)
    changed = np.any(draw_overlay(rgb, result(), DRIVING, times, fps=29.9) != without, axis=2)
    ys, xs = np.nonzero(changed)
    assert ys.min() > HEIGHT - 26
    assert xs.min() > WIDTH // 2


@pytest.mark.parametrize("size", [(8, 6), (64, 48), (320, 240), (240, 1000), (2000, 90), (1920, 1200)])
def test_any_size_is_drawn(size: tuple[int, int]):
    width, height = size
    panoptic = np.zeros((height, width), np.uint16)
    box = Box(width // 4, height // 4, width // 2, height // 2)
    fill(panoptic, box, WALKER)
    one = (Instance(WALKER, 4, "pedestrian", 1.0, box, box.width * box.height),)
    shown = PanopticResult(FRAME, mask_of(panoptic), panoptic, one, size)
    image = np.zeros((height, width, 3), np.uint8)
    drawn = draw_overlay(image, shown, DRIVING, StageTimes(1, 1, 1, 1, 1, 1, 1, 6, 7), fps=30.0)
    assert drawn.shape == image.shape
    assert np.any(drawn[box.y : box.y + box.height, box.x : box.x + box.width])


def test_labels_without_a_background_are_all_tinted():
    labels = LabelSet((Label(0, "road", False, (128, 64, 128)), Label(1, "car", True, (0, 0, 142))))
    empty = np.zeros((48, 64), np.uint16)
    shown = PanopticResult(FRAME, mask_of(empty), empty, (), (64, 48))
    drawn = draw_overlay(np.zeros((48, 64, 3), np.uint8), shown, labels)
    assert np.all(np.abs(drawn - TINT * np.array((128, 64, 128))) <= 1)


def test_more_instances_than_colours_are_drawn():
    panoptic = np.zeros((200, 400), np.uint16)
    instances = []
    for k in range(400):
        box = Box(k % 40 * 10, k // 40 * 20, 8, 7)  # too low for a label
        fill(panoptic, box, 4001 + k)
        instances.append(Instance(4001 + k, 4, "pedestrian", 0.5, box, 56))
    shown = PanopticResult(FRAME, mask_of(panoptic), panoptic, tuple(instances), (400, 200))
    drawn = draw_overlay(np.zeros((200, 400, 3), np.uint8), shown, DRIVING)
    np.testing.assert_array_equal(np.any(drawn, axis=2), panoptic > 0)


def test_shades_differ_between_instances_but_stay_with_their_class():
    for label in DRIVING.things:
        shades = [shade(label.color, k) for k in range(1, 9)]
        assert len(set(shades)) == len(shades)
        hue = colorsys.rgb_to_hls(*(c / 255 for c in label.color))[0]
        for color in shades:
            turned = abs(colorsys.rgb_to_hls(*(c / 255 for c in color))[0] - hue)
            assert min(turned, 1 - turned) < 0.05


def test_what_does_not_fit_is_refused(rgb: NDArray[np.uint8]):
    with pytest.raises(ValueError, match=r"rgb must be uint8 \(720, 1280, 3\), got uint8 \(719, 1280, 3\)"):
        draw_overlay(rgb[1:], result(), DRIVING)
    with pytest.raises(ValueError, match="out must be uint8"):
        draw_overlay(rgb, result(), DRIVING, out=np.empty((HEIGHT, WIDTH, 4), np.uint8))
    rgb.setflags(write=False)
    with pytest.raises(ValueError, match="writable"):
        draw_overlay(rgb, result(), DRIVING, out=rgb)


def scene(*things: tuple[int, Box], size: tuple[int, int] = (WIDTH, HEIGHT), score: float = 0.5) -> PanopticResult:
    """Things by their panoptic id, the later over the earlier, over nothing."""
    panoptic = np.zeros((size[1], size[0]), np.uint16)
    instances = []
    for value, box in things:
        fill(panoptic, box, value)
        label = DRIVING[value // 1000]
        instances.append(Instance(value, label.id, label.name, score, box, box.width * box.height))
    return PanopticResult(FRAME, mask_of(panoptic), panoptic, tuple(instances), size)


def drawn_on_black(shown: PanopticResult, times: StageTimes | None = None) -> NDArray[np.uint8]:
    width, height = shown.native_size
    return draw_overlay(np.zeros((height, width, 3), np.uint8), shown, DRIVING, times)


def test_many_neighbours_have_shades_of_their_own_and_keep_what_reaches_into_a_box_of_theirs():
    row = [(3001 + k, Box(100 + 40 * k, 300, 40, 30)) for k in range(12)]
    shown = scene((4001, Box(90, 250, 500, 160)), *row)  # the pedestrian is seen around them only
    drawn = drawn_on_black(dataclasses.replace(shown, instances=shown.instances[::-1]))
    for value, box in row:
        middle = drawn[box.y + 15, box.x + 20]
        assert np.abs(middle - TINT * np.array(shade(DRIVING[3].color, value % 1000))).max() <= 1
        assert tuple(drawn[box.y + 15, box.x]) == shade(DRIVING[3].color, value % 1000), "outlines between them"
    around = TINT * np.array(shade(DRIVING[4].color, 1))
    assert np.abs(drawn[390, 300] - around).max() <= 1


@pytest.mark.parametrize("classes", [254, 255])
def test_where_classes_leave_no_colours_for_instances_each_has_that_of_its_class(classes: int):
    """All had the last one's, whatever its class."""
    red, blue = (250, 10, 10), (10, 10, 250)
    labels = LabelSet(tuple(Label(k, f"c{k}", k in (3, 4), blue if k == 4 else red) for k in range(classes)))
    boxes = {3001: Box(100, 300, 200, 120), 3002: Box(400, 300, 200, 120), 4001: Box(700, 300, 200, 120)}
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = draw_overlay(black, scene(*boxes.items()), labels)
    strongest = [int(drawn[box.y + 100, box.x + 100].argmax()) for box in boxes.values()]
    assert strongest == [0, 0, 2]


def test_a_track_keeps_its_shade_whatever_its_number_in_the_frame():
    box = Box(300, 300, 200, 120)
    first, second = scene((3001, box)), scene((3002, box))
    assert (drawn_on_black(first) != drawn_on_black(second)).any()
    followed = [
        dataclasses.replace(shown, instances=(dataclasses.replace(shown.instances[0], track=77),))
        for shown in (first, second)
    ]
    np.testing.assert_array_equal(*(drawn_on_black(shown) for shown in followed))


def backing(drawn: NDArray[np.uint8], value: int, track: int | None = None) -> tuple[int, int, int, int]:
    """First and last row and column of a label: where the shade is solid and nothing of its outline is."""
    color = shade(DRIVING[value // 1000].color, value % 1000 if track is None else track)
    ys, xs = np.nonzero((drawn == color).all(axis=2))
    return int(ys.min()), int(ys.max()), int(xs.min()), int(xs.max())


def test_labels_stay_in_the_image():
    drawn = drawn_on_black(scene((3001, Box(1260, 300, 20, 100))))
    top, _, left, right = backing(drawn, 3001)
    assert 270 < top < 300 and right == WIDTH - 1 and right - left > 60, "moved to the left"
    inside = drawn_on_black(scene((3001, Box(500, 0, 60, 700))))  # no room above it, nor below
    assert backing(inside, 3001)[3] > 560 and (inside[:700, 560:] == 0).all(axis=2)[40:].all()
    taken, low = Box(500, 675, 80, 30), Box(505, 675, 60, 30)  # both have room above, for one label
    pair = scene((3001, low), (3002, taken))
    alone = dataclasses.replace(pair, instances=(pair.instances[1], dataclasses.replace(pair.instances[0], area=1)))
    assert (drawn_on_black(alone)[705 + 3 :] == 0).all(), "a label that would be cut off is left out"


def test_labels_one_above_the_other_are_both_there():
    upper, lower = Box(300, 200, 200, 100), Box(300, 450, 200, 100)
    drawn = drawn_on_black(scene((3001, upper), (3002, lower)))
    assert backing(drawn, 3001)[0] < upper.y and 400 < backing(drawn, 3002)[0] < lower.y


def test_letters_are_dark_on_light_and_light_on_dark():
    for value in (2, 3, 4, 5):
        color = DRIVING[value].color
        things = LabelSet(tuple(Label(one.id, one.name, True, color) for one in DRIVING))
        shown = scene((3001, Box(300, 300, 200, 120)))
        drawn = draw_overlay(np.zeros((HEIGHT, WIDTH, 3), np.uint8), shown, things)
        back = np.array(shade(color, 1))
        label = drawn[290 - 5 : 298, 302:380].reshape(-1, 3).astype(int)
        farthest = label[np.argmax(np.abs(label - back).sum(axis=1))]
        light = back @ (0.299, 0.587, 0.114)
        assert (farthest.mean() < light) == (light > 130)


def test_scores_have_two_digits_and_1_is_kept_for_certainty():
    box = Box(300, 300, 200, 120)
    pictures = {score: drawn_on_black(scene((3001, box), score=score)) for score in (0.9899, 0.99, 0.9999, 1.0, 0.98)}
    np.testing.assert_array_equal(pictures[0.9999], pictures[0.99])
    np.testing.assert_array_equal(pictures[0.9899], pictures[0.99])
    assert (pictures[1.0] != pictures[0.99]).any() and (pictures[0.98] != pictures[0.99]).any()


def test_outlines_are_there_in_small_images_and_letters_fit_narrow_ones():
    box = Box(20, 15, 30, 20)
    drawn = drawn_on_black(scene((3001, box), size=(64, 48)))
    assert tuple(drawn[25, 20]) == tuple(drawn[15, 35]) == shade(DRIVING[3].color, 1)
    tall = drawn_on_black(scene((3001, Box(100, 500, 60, 200)), size=(240, 1000)))
    first, _, left, last = backing(tall, 3001)
    assert 500 - first < 20 and last - left < 140, "as in an image that is 240 pixels wide"


def test_the_strip_tells_the_longest_whole_that_is_known():
    def strip(times: StageTimes) -> NDArray[np.uint8]:
        return drawn_on_black(scene(), times)[HEIGHT - 26 :, WIDTH // 2 :]

    every = strip(StageTimes(inference=9.0, processing=11.0, end_to_end=13.0))
    np.testing.assert_array_equal(every, strip(StageTimes(inference=9.0, end_to_end=13.0)))
    middle = strip(StageTimes(inference=9.0, processing=11.0))
    assert (every != middle).any() and (middle != strip(StageTimes(inference=9.0))).any()


def test_names_of_stages_can_be_read_over_a_white_image():
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    times = StageTimes(*[3.0] * 7)
    strip = draw_overlay(white, scene(), DRIVING, times)[HEIGHT - 26 :]
    bars, paper = np.unique(strip[0, : WIDTH // 2], axis=0), strip[-1, 0]
    assert len(bars) >= 5
    assert min(contrast(color, paper) for color in bars) >= 4.5


def test_without_any_time_the_strip_does_not_say_zero():
    none, zero = (
        drawn_on_black(scene(), times)[:, WIDTH // 2 :] for times in (StageTimes(), StageTimes(inference=0.0))
    )
    assert (none != zero).any()


def test_stages_that_have_no_room_are_left_out_and_the_sum_stays_readable():
    times = StageTimes(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, end_to_end=28.0)
    size = (360, 720)
    drawn = drawn_on_black(scene(size=size), times)
    alone = drawn_on_black(scene(size=size), StageTimes(end_to_end=28.0))
    changed = (drawn != alone).any(axis=2)[HEIGHT - 8 :]  # below the bars
    assert np.flatnonzero(changed.any(axis=0)).max() < np.flatnonzero(alone[HEIGHT - 8 :].any(axis=(0, 2))).min()
