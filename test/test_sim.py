"""The built-in simulator: same bytes every time, and a truth that is exact."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from drive_seg.sim import WEATHERS, SimFrame, Simulator
from drive_seg.sim.camera import NEAR, Camera, clip_near, rotation
from drive_seg.sim.canvas import FIRST_THING, PEDESTRIAN, VEHICLE, Canvas
from drive_seg.sim.cell import Cell, Crosser
from drive_seg.sim.effects import Effects
from drive_seg.sim.mesh import Light, paint_mesh
from drive_seg.sim.road import Stretch
from drive_seg.sim.scenery import Barrier, House, Post, Tree
from drive_seg.sim.stage import Stage
from drive_seg.sim.traffic import Actor, Traffic
from drive_seg.sim.vehicles import CARS, vehicle
from drive_seg.sim.weather import draw_weather

WIDTH, HEIGHT = 320, 192
THINGS = (3, 4, 5)


def digest(frame: SimFrame) -> str:
    return hashlib.sha256(frame.image.tobytes() + frame.panoptic.tobytes()).hexdigest()


def small(seed: int, weather: str | None = None) -> Simulator:
    return Simulator(seed, WIDTH, HEIGHT, weather=weather)


def test_shapes_and_stamps() -> None:
    frame = Simulator(1, 321, 203, fps=20.0).frame(7)
    assert frame.image.shape == (203, 321, 3) and frame.image.dtype == np.uint8
    assert frame.panoptic.shape == (203, 321) and frame.panoptic.dtype == np.uint16
    assert frame.mask.shape == (203, 321) and frame.mask.dtype == np.uint8
    assert (frame.index, frame.stamp_ns) == (7, 350_000_000)


def test_any_order_gives_the_same_bytes() -> None:
    onwards = small(5)
    first = {index: digest(onwards.frame(index)) for index in (0, 3, 400)}
    backwards = small(5)
    assert {index: digest(backwards.frame(index)) for index in (400, 3, 0)} == first
    assert len(set(first.values())) == 3
    assert digest(small(6).frame(0)) != first[0]


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from drive_seg.sim import Simulator;"
        f"f = Simulator(9, {WIDTH}, {HEIGHT}, weather='rain').frame(31);"
        "print(hashlib.sha256(f.image.tobytes() + f.panoptic.tobytes()).hexdigest())"
    )
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest(small(9, "rain").frame(31))


@pytest.mark.parametrize("weather", ["rain", None])
def test_a_simulator_pickles_with_its_drive(weather: str | None) -> None:
    """As what a process pool is given."""
    simulator = Simulator(9, 160, 96, 25.0, weather)
    before = simulator.frame(31)
    same = pickle.loads(pickle.dumps(simulator))
    assert (same.frame(31).stamp_ns, digest(same.frame(31))) == (before.stamp_ns, digest(before))


@pytest.mark.parametrize("seed", [0, 3, 14, 32])
def test_instances_are_numbered_without_gaps(seed: int) -> None:
    frame = small(seed).frame(40)
    areas = dict(zip(*(column.tolist() for column in np.unique(frame.panoptic, return_counts=True)), strict=True))
    values = areas.keys() - {65535}
    stuff = {value for value in values if value < 1000}
    assert stuff <= {0, 1, 2}
    for class_id in THINGS:
        numbers = sorted(value - 1000 * class_id for value in values if value // 1000 == class_id)
        assert numbers == list(range(1, len(numbers) + 1))
    assert {value // 1000 for value in values if value >= 1000} <= set(THINGS)
    # What is smaller than 16x16 pixels of 720p is nobody's.
    assert all(areas[value] >= 256 * WIDTH * HEIGHT / (1280 * 720) for value in values if value >= 1000)
    one_class = {value: value // 1000 if value >= 1000 else value for value in values} | {65535: 255}
    expected = [[one_class[pixel] for pixel in row] for row in frame.panoptic.tolist()]
    assert frame.mask.tolist() == expected


@pytest.mark.parametrize("seed", [0, 14])
def test_things_keep_their_numbers(seed: int) -> None:
    simulator = small(seed)
    classes: dict[int, int] = {}
    before: SimFrame | None = None
    followed = lost = 0
    for index in range(40, 70, 2):
        now = simulator.frame(index)
        values = np.unique(now.panoptic)
        assert now.tracks.keys() == {value for value in values.tolist() if 1000 <= value < 65535}
        assert len(set(now.tracks.values())) == len(now.tracks) and min(now.tracks.values(), default=1) > 0
        for value, number in now.tracks.items():
            assert classes.setdefault(number, value // 1000) == value // 1000
        for value, number in before.tracks.items() if before else ():
            there = before.panoptic == value
            if there.sum() < 400:
                continue
            # What is large here covers itself most of all a fifteenth of a second later, unless it is overtaken.
            heirs, pixels = np.unique(now.panoptic[there], return_counts=True)
            heir = int(heirs[pixels.argmax()])
            followed += now.tracks.get(heir) == number
            lost += now.tracks.get(heir) != number
        before = now
    assert followed > 20 and lost < 0.2 * followed


def test_every_class_and_weather_appears() -> None:
    seen: set[int] = set()
    for seed, weather in enumerate(WEATHERS):
        simulator = small(seed + 30, weather)
        assert simulator.weather == weather
        for index in (20, 60, 100):
            frame = simulator.frame(index)
            assert frame.image.std() > 8
            assert (frame.mask == 1).mean() > 0.05
            seen |= set(np.unique(frame.mask).tolist())
    assert seen - {255} == {0, 1, 2, 3, 4, 5}


def test_weather_drawn_from_the_seed_varies() -> None:
    assert len({small(seed).weather for seed in range(20)}) >= 4


def test_night_is_darker_than_day() -> None:
    for seed in range(3):
        night, day = (small(seed, weather).frame(0).image[: HEIGHT // 4] for weather in ("night", "clear"))
        assert night.mean() < 0.7 * day.mean()


def test_weather_does_not_change_what_is_where() -> None:
    clear, grey = small(7, "clear").frame(12), small(7, "overcast").frame(12)
    # Only a bonnet may differ: it is drawn with the effects of the weather.
    upper = slice(0, int(HEIGHT * 0.8))
    np.testing.assert_array_equal(clear.panoptic[upper], grey.panoptic[upper])


@pytest.mark.parametrize("seed", [4, 12])
def test_frames_flow(seed: int) -> None:
    simulator = small(seed)
    frames = [simulator.frame(index) for index in (100, 101, 130)]
    near = (frames[0].mask != frames[1].mask).mean()
    far = (frames[0].mask != frames[2].mask).mean()
    assert 0 < near < 0.06
    assert near < far


def test_a_dash_is_seen_until_the_camera_has_passed_its_end() -> None:
    simulator = small(70003)
    (dashed, *_) = (line for line in simulator._layout.lines if line.dash)
    seen = 0
    for index in range(24, 40, 2):
        time = index / simulator.fps
        stretch, camera = simulator._road.stretch(simulator._traffic.ego.travelled(time)), simulator._camera(time)
        s = stretch.origin + np.arange(1.0, 9.0, 0.1)
        within = np.mod(s, dashed.dash + dashed.gap)
        s = s[(within > 0.2) & (within < dashed.dash - 0.2)]
        columns, rows = np.rint(camera.pixels(camera.to_camera(stretch.place(s, dashed.d)))).astype(int).T
        inside = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
        owners = simulator.frame(index).mask[rows[inside], columns[inside]]
        assert not (owners == 1).any()
        seen += int((owners == 2).sum())
    assert seen > 50


def test_a_raised_median_hides_the_paint_behind_its_kerb() -> None:
    simulator = small(211)
    layout = simulator._layout
    stretch, camera = simulator._road.stretch(simulator._traffic.ego.travelled(2.0)), simulator._camera(2.0)
    assert layout.median and camera.position[2] < 2
    s = stretch.origin + np.arange(6.0, 15.0, 0.25)
    seen = []
    for line in (min(layout.lines, key=lambda line: abs(line.d - d)) for d in (layout.median + 0.15, -0.15)):
        columns, rows = np.rint(camera.pixels(camera.to_camera(stretch.place(s, line.d)))).astype(int).T
        inside = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
        seen.append(simulator.frame(60).mask[rows[inside], columns[inside]])
    behind, before = seen
    assert len(behind) > 10 and not np.isin(behind, (1, 2)).any()
    assert len(before) > 10 and (before == 2).mean() > 0.8


def test_the_drive_never_turns_back() -> None:
    for seed in range(8):
        simulator = small(seed)
        ego = Traffic(seed, simulator._layout).ego
        where = np.array([ego.travelled(time) for time in np.arange(0, 300, 0.5)])
        assert (np.diff(where) > 0).all()


def test_long_drive_stays_a_road() -> None:
    simulator = small(8)
    for index in (0, 3_000, 9_000, 30_000):
        mask = simulator.frame(index).mask
        assert np.isin(mask[HEIGHT // 2 :], (1, 2)).mean() > 0.15


def _camera() -> Camera:
    return Camera(WIDTH, HEIGHT, 300.0, np.array([0.0, 0.0, 1.4]), rotation(0.0, -0.02, 0.0))


def _light() -> Light:
    weather = draw_weather(np.random.Generator(np.random.PCG64(1)), "clear")
    return Light(weather, [], np.array([0.0, 0.0, 1.0]), 0.0)


def _paint_cars(canvas: Canvas, distances: tuple[float, ...]) -> None:
    for number, distance in enumerate(distances):
        owner = canvas.new_instance(VEHICLE)
        paint_mesh(canvas, _camera(), _light(), vehicle(number).mesh, np.array([distance, 0.0, 0.0]), 0.0, owner)


@pytest.mark.parametrize("first", [0, CARS])
def test_truth_covers_what_the_picture_shows(first: int) -> None:
    """A body on an empty sheet: the truth is where the picture is painted, without holes."""
    empty = (255, 0, 255)
    near = np.ones((3, 3), np.uint8)
    for number in range(first, first + 30):
        canvas = Canvas(WIDTH, HEIGHT)
        canvas.image[:] = empty
        owner = canvas.new_instance(VEHICLE)
        place = np.array([14.0, 2.5 if number % 2 else -3.0, 0.0])
        paint_mesh(canvas, _camera(), _light(), vehicle(number).mesh, place, 0.1 * number, owner)
        change = np.abs(canvas.image.astype(int) - empty).max(axis=2)
        truth = (canvas.owners == owner).astype(np.uint8)
        assert truth.sum() > 200
        # Anti-aliasing reaches a pixel beyond the truth; strong paint must not.
        assert ((change > 90) & (cv2.dilate(truth, near) == 0)).sum() <= 0.002 * truth.sum()
        assert ((change == 0) & (truth == 1)).sum() <= 0.002 * truth.sum()
        assert (cv2.morphologyEx(truth, cv2.MORPH_CLOSE, near) - truth).sum() < 0.02 * truth.sum()


def test_the_nearer_hides_the_farther() -> None:
    alone = Canvas(WIDTH, HEIGHT)
    _paint_cars(alone, (30.0,))
    both = Canvas(WIDTH, HEIGHT)
    _paint_cars(both, (30.0, 9.0))
    far, near = FIRST_THING, FIRST_THING + 1
    assert (alone.owners == far).sum() > 100
    assert (both.owners == far).sum() < 0.2 * (alone.owners == far).sum()
    assert not ((both.owners == far) & (alone.owners != far)).any()
    assert (both.owners == near).sum() > 1000


def _stage(cells: list[Cell], *actors: Actor) -> Canvas:
    """A straight road, on an empty sheet."""
    s = np.arange(-14.0, 191.0)
    level = np.zeros_like(s)
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.image[:] = (255, 0, 255)
    Stage(canvas, _camera(), Stretch(0.0, False, s, s, level, level, level), _light(), 1).draw(cells, list(actors))
    return canvas


def _on_stage(*actors: Actor, cells: tuple[Cell, ...] = ()) -> set[tuple[int, int, int]]:
    """The pixels (row, column) that the truth gives to each number."""
    values, tracks = _stage(list(cells), *actors).truth()
    return {(tracks[values[y, x]], y, x) for y, x in np.argwhere((values >= 1000) & (values < 65535)).tolist()}


@pytest.mark.parametrize("behind", [-3.5, -0.3, 0.3, 3.5])
@pytest.mark.parametrize("kind", ["vehicle", "walker", "cyclist"])
@pytest.mark.parametrize("mirror", [1, -1])
def test_a_lorry_hides_what_is_beyond_it_and_not_what_is_before_it(kind: str, behind: float, mirror: int) -> None:
    look = max(range(CARS, CARS + 60), key=lambda number: vehicle(number).length)
    end = vehicle(look).length / 2
    lorry = Actor(VEHICLE, "vehicle", look, 16.0, 3.2 * mirror, 0.0, 0.0, False, 1)
    beyond = Actor(VEHICLE, kind, 3, 16.0 + behind, 6.0 * mirror, 0.0, 0.0, True, 2)
    before = Actor(VEHICLE, kind, 3, 16.0 + end - 2.0 + behind / 4, 1.0 * mirror, 0.0, 0.0, True, 3)
    alone = {actor.number: _on_stage(actor) for actor in (lorry, beyond, before)}
    assert _on_stage(lorry, beyond) >= alone[1]
    assert _on_stage(lorry, before) >= alone[3]


@pytest.mark.parametrize("mirror", [1, -1])
@pytest.mark.parametrize("kind", ["house", "wall", "tree", "post"])
def test_what_stands_hides_what_is_beyond_it_and_not_what_is_before_it(kind: str, mirror: int) -> None:
    """Of a long wall the middle is farther than who is behind its near end, nearer than who is before its far end."""
    grey, s, d = np.array([90.0, 90.0, 90.0]), 16.0, 3.2 * mirror
    cell = {
        "house": Cell(houses=(House(10.0, 40.0, d, 5.0, 2.0, 1, 0.0, 1.0),)),
        "wall": Cell(barriers=(Barrier(10.0, 40.0, d, 2.5, "wall", grey),)),
        "tree": Cell(trees=(Tree(s, d, 1.0, 1.5, 1),)),
        "post": Cell(posts=(Post(s, d, 4.0, 0.2, "lamp", grey, 1.5),)),
    }[kind]
    places = (
        [(17.0, 1.0), (36.0, 1.0), (20.0, 6.0)]
        if kind in ("house", "wall")
        else [(15.0, 3.0), (15.0, 2.2), (17.0, 3.4)]
    )
    *before, beyond = (Actor(VEHICLE, "walker", 3, at, off * mirror, 0.0, 0.0, True, 1) for at, off in places)
    for actor in before:
        assert _on_stage(actor, cells=(cell,)) == _on_stage(actor) != set()
    painted = (np.abs(_stage([cell]).image.astype(int) - (255, 0, 255)).max(axis=2) > 90).nonzero()
    hidden = {(1, y, x) for y, x in zip(*painted, strict=True)} & _on_stage(beyond)
    assert len(hidden) > 30
    assert len(hidden & _on_stage(beyond, cells=(cell,))) < 0.1 * len(hidden), "but for soft edges"
    assert _on_stage() == set()


def test_a_hidden_thing_gets_no_number() -> None:
    canvas = Canvas(64, 48)
    square = np.array([[10, 10], [30, 10], [30, 30], [10, 30]], dtype=np.int32) * 16
    grey = np.array([90.0, 90.0, 90.0])
    hidden, shown = canvas.new_instance(PEDESTRIAN), canvas.new_instance(PEDESTRIAN)
    canvas.convex(square, grey, hidden)
    canvas.convex(square, grey, shown)
    assert np.unique(canvas.truth()[0]).tolist() == [0, 4001]


def test_what_two_polygons_cover_is_painted_too() -> None:
    """A dash that runs into a zebra crossing."""
    square = np.array([[10, 10], [30, 10], [30, 30], [10, 30]], dtype=np.int32) * 16
    canvas = Canvas(64, 48)
    canvas.polygons([square, square + 10 * 16], np.array([90.0, 90.0, 90.0]), 2)
    assert (canvas.owners[10:31, 10:31] == 2).all() and (canvas.owners[20:41, 20:41] == 2).all()
    assert (canvas.image[11:30, 11:30] == 90).all() and (canvas.image[21:40, 21:40] == 90).all()


def test_a_full_sheet_refuses_more_instances() -> None:
    canvas = Canvas(32, 32)
    while canvas.new_instance(VEHICLE) is not None:
        pass
    assert len(canvas.owner_class) == 256


@pytest.mark.parametrize("weather", ["fog", "night"])
@pytest.mark.parametrize("seed", [5, 11])
def test_haze_and_night_take_a_hill_above_the_level_row_too(
    weather: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Effects, "finish", lambda *_: None)
    simulator = small(seed, weather)
    frame = simulator.frame(60)
    above = slice(0, int(simulator._camera(60 / simulator.fps).horizon()))
    road = frame.image[above][np.isin(frame.mask[above], (1, 2))].astype(float)
    assert len(road) > 20, "the road climbs"
    assert np.abs(road - simulator._weather.haze).max() < 20


def test_a_wet_road_mirrors_down_to_the_bottom() -> None:
    """The horizon lies above the middle: below twice its row there is nothing in the picture to mirror."""
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.image[:] = 110
    canvas.image[:60] = 250
    canvas.owners[60:] = 1
    weather = replace(draw_weather(np.random.Generator(np.random.PCG64(1)), "rain"), wet=0.8, rain=0.0)
    Effects(0, WIDTH, HEIGHT, weather).finish(canvas, 0, 60.0, [])
    assert (canvas.owners[-1] == 1).all(), "no bonnet here"
    rows = canvas.image[66:].mean(axis=(1, 2))
    assert np.abs(np.diff(rows)).max() < 4


def test_intrinsics_project_like_the_picture() -> None:
    simulator = Simulator(3, 640, 384)
    k = simulator.intrinsics
    assert k.shape == (3, 3) and k.dtype == np.float64
    assert (k[0, 2], k[1, 2]) == (319.5, 191.5)
    field = np.degrees(2 * np.arctan(320 / k[0, 0]))
    assert 50 <= field <= 80
    camera = simulator._camera(0.0)
    points = np.array([[1.0, -0.5, 8.0], [-2.0, 0.3, 20.0]])
    homogeneous = points @ k.T
    np.testing.assert_allclose(camera.pixels(points), homogeneous[:, :2] / homogeneous[:, 2:], atol=1e-9)


def test_clipping_keeps_the_part_in_front() -> None:
    square = np.array([[-1.0, 0.0, -1.0], [1.0, 0.0, -1.0], [1.0, 0.0, 3.0], [-1.0, 0.0, 3.0]])
    cut = clip_near(square)
    assert cut is not None and len(cut) == 4
    assert cut[:, 2].min() == pytest.approx(NEAR) and cut[:, 2].max() == 3.0
    assert clip_near(square - np.array([0.0, 0.0, 10.0])) is None
    triangle = clip_near(np.array([[0.0, 0.0, 3.0], [1.0, 0.0, -1.0], [-1.0, 0.0, -1.0]]))
    assert triangle is not None and len(triangle) == 3


@pytest.mark.parametrize("pitch", [-0.1, 0.0, 0.05])
def test_the_horizon_is_where_what_is_far_and_level_is_seen(pitch: float) -> None:
    camera = Camera(320, 192, 250.0, np.array([0.0, 0.0, 1.5]), rotation(0.0, pitch, 0.0))
    ((column, row),) = camera.pixels(camera.to_camera(np.array([[1e7, 0.0, 1.5]])))
    assert (column, row) == (pytest.approx(159.5), pytest.approx(camera.horizon()))
    assert (row < 95.5) == (pitch < 0) and (row > 95.5) == (pitch > 0), "looking up, it lies low"


def test_who_crosses_waits_walks_and_stays_on_the_other_side() -> None:
    walker = Actor(PEDESTRIAN, "walker", 7, 100.0, -5.0, 0.0, gone=0.0, standing=False)
    for d_from, d_to, yaw in ((-5.0, 5.0, np.pi / 2), (5.0, -5.0, -np.pi / 2)):
        crosser = Crosser(walker, begin=40.0, end=10.0, d_from=d_from, d_to=d_to)
        for distance, d in ((90.0, d_from), (40.1, d_from), (32.5, d_from / 2), (25.0, 0.0), (9.9, d_to), (-3.0, d_to)):
            found = crosser.at(distance)
            assert (found.d, found.yaw) == (pytest.approx(d), yaw)
            assert found.gone == pytest.approx(abs(d - d_from))
            assert found.standing == (abs(d) == 5.0)


@pytest.mark.parametrize("seed", [3, 11])
def test_the_listed_things_are_those_of_the_map_with_boxes_to_the_pixel(seed: int) -> None:
    seen = 0
    for index in (0, 90, 180):
        frame = small(seed).frame(index)
        things = frame.instances()
        values = {int(v) for v in np.unique(frame.panoptic) if 1000 <= v < 65535}
        assert [thing.panoptic_id for thing in things] == sorted(values)
        for thing in things:
            rows, columns = np.nonzero(frame.panoptic == thing.panoptic_id)
            box = thing.box
            assert (box.x, box.x + box.width - 1) == (columns.min(), columns.max())
            assert (box.y, box.y + box.height - 1) == (rows.min(), rows.max())
            assert (thing.area, thing.class_id) == (rows.size, thing.panoptic_id // 1000)
            assert thing.track == frame.tracks[thing.panoptic_id]
        seen += len(things)
    assert seen > 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weather": "snow"}, "weather: expected one of clear, overcast.*got 'snow'"),
        ({"width": 0}, "width: expected 32..8192 pixels, got 0"),
        ({"height": 100_000}, "height: expected 32..8192 pixels, got 100000"),
        ({"fps": 0.0}, "fps: expected a rate above 0.*got 0.0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Simulator(0, **arguments)  # type: ignore[arg-type]


def test_negative_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="index: expected 0 or more, got -1"):
        small(0).frame(-1)
