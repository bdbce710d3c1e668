"""The simulator: any frame of an endless drive, with the truth of every pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .camera import SHIFT, Camera, FixedArray, FloatArray, intrinsics, rotation
from .canvas import FIRST_THING, ByteArray, Canvas
from .chance import chance
from .effects import Effects, Glare
from .ground import Ground, Paint
from .mesh import Light, paint_mesh
from .people import cyclist, motorcyclist, paint_wheels, person, walker
from .road import Road, Stretch, draw_layout
from .scenery import Scenery
from .textures import SKY_COLUMNS, SKY_HIGH, SKY_LOW, SKY_ROWS, ground_tile, sky
from .traffic import AHEAD, Actor, Traffic, actor_size
from .vehicles import vehicle
from .weather import WEATHERS, draw_weather
from .world import Cell, World

THING = 1000  # panoptic value = class * THING + number
_SIGHT = 135.0
_MIN_SIDE, _MAX_SIDE = 32, 8192


@dataclass(frozen=True)
class SimFrame:
    """One frame: picture and truth.

    `image` uint8 (H, W, 3) RGB. `panoptic` uint16 (H, W): stuff pixel = class id, thing pixel = class id * 1000 + k
    with k = 1.. within frame and class. `stamp_ns` = index / fps in nanoseconds.
    """

    image: npt.NDArray[np.uint8]
    panoptic: npt.NDArray[np.uint16]
    index: int
    stamp_ns: int

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """Class id per pixel, uint8 (H, W)."""
        return np.where(self.panoptic >= THING, self.panoptic // THING, self.panoptic).astype(np.uint8)


class Simulator:
    """A drive drawn from a seed. Frames may be asked for in any order; equal arguments give equal bytes.

    `weather` is one of clear, overcast, dusk, night, rain, fog; None draws it from the seed.
    """

    def __init__(self, seed: int = 0, width: int = 1280, height: int = 720, fps: float = 30.0,
                 weather: str | None = None) -> None:
        for name, side in (("width", width), ("height", height)):
            if not _MIN_SIDE <= side <= _MAX_SIDE:
                raise ValueError(f"{name}: expected {_MIN_SIDE}..{_MAX_SIDE} pixels, got {side}")
        if not 0 < fps <= 1000:
            raise ValueError(f"fps: expected a rate above 0 and up to 1000 Hz, got {fps}")
        if weather is not None and weather not in WEATHERS:
            raise ValueError(f"weather: expected one of {', '.join(WEATHERS)} or None, got {weather!r}")
        rng = chance(seed, 1)
        drawn = WEATHERS[int(np.searchsorted(np.cumsum([0.38, 0.24, 0.1, 0.1, 0.1, 0.08]), rng.random() * 0.999))]
        self.seed, self.width, self.height, self.fps = seed, width, height, float(fps)
        self.weather = weather or drawn
        self._weather = draw_weather(chance(seed, 2, WEATHERS.index(self.weather)), self.weather)
        self._layout = draw_layout(chance(seed, 3))
        self._road = Road(seed, self._layout)
        self._traffic = Traffic(seed, self._layout)
        self._world = World(seed, self._layout, self._traffic.heavy)
        self._mount(chance(seed, 4))
        self._paint = _draw_paint(chance(seed, 5))
        self._effects = Effects(seed, width, height, self._weather)
        tile = ground_tile(seed)
        self._rough = (tile, *(cv2.resize(tile, None, fx=1 / 2**n, fy=1 / 2**n, interpolation=cv2.INTER_AREA)
                               for n in (1, 2, 3)))
        haze_share = 1 - float(np.exp(-220 / self._weather.sight))
        self._sky = sky(seed, self._weather.sky_top, self._weather.sky_low, self._weather.cloud, self._weather.haze,
                        haze_share)

    def _mount(self, rng: np.random.Generator) -> None:
        field = float(np.radians(rng.uniform(50, 80)))
        self._focal = self.width / 2 / float(np.tan(field / 2))
        self._height = float(rng.uniform(1.2, 1.8))
        self._pitch = float(rng.normal(-0.035, 0.025))
        self._roll, self._yaw = float(rng.normal(0, 0.012)), float(rng.normal(0, 0.02))
        self._phases = rng.uniform(0, 2 * np.pi, 6)

    @property
    def intrinsics(self) -> npt.NDArray[np.float64]:
        """K (3, 3) of the pinhole camera, pixels; the middle of the first pixel is (0, 0)."""
        return intrinsics(self.width, self.height, self._focal)

    def frame(self, index: int) -> SimFrame:
        """Frame number `index` (0 or more) of the drive."""
        if index < 0:
            raise ValueError(f"index: expected 0 or more, got {index}")
        time = index / self.fps
        stretch = self._road.stretch(self._traffic.ego.travelled(time))
        camera = self._camera(time)
        canvas = Canvas(self.width, self.height)
        cells = self._world.around(stretch.origin, _SIGHT, 14.0)
        actors = self._actors(time, stretch.origin, cells)
        light = self._light(stretch)

        self._draw_sky(canvas, camera, stretch)
        self._draw_ground(canvas, camera, stretch, cells, actors, light)
        glares = self._draw_upright(canvas, camera, stretch, cells, actors, light)
        self._effects.finish(canvas, index, camera.horizon(), glares)
        return SimFrame(canvas.image, number(canvas), index, round(index * 1e9 / self.fps))

    def _camera(self, time: float) -> Camera:
        phases = self._phases
        shake = 0.0022 * np.sin(9.1 * time + phases[0]) + 0.0035 * np.sin(2.3 * time + phases[1])
        sway = 0.12 * np.sin(0.31 * time + phases[2]) + 0.05 * np.sin(0.83 * time + phases[3])
        side = self._layout.lane_centre(self._layout.ego) + sway
        position = np.array([0.0, -side if self._layout.mirrored else side,
                             self._height + 0.012 * np.sin(5.3 * time + phases[4])])
        grade = float(self._road.elevation(np.array(self._traffic.ego.travelled(time) + 2.0))
                      - self._road.elevation(np.array(self._traffic.ego.travelled(time) - 2.0))) / 4
        yaw = self._yaw + 0.006 * np.cos(0.31 * time + phases[2])
        roll = self._roll + 0.003 * np.sin(1.9 * time + phases[5])
        return Camera(self.width, self.height, self._focal, position,
                      rotation(yaw, self._pitch + shake + grade, roll))

    def _light(self, stretch: Stretch) -> Light:
        azimuth = self._weather.sun_azimuth - float(self._road.heading(np.array(stretch.origin)))
        level = np.cos(self._weather.sun_elevation)
        sun = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(self._weather.sun_elevation)])
        return Light(self._weather, sun, 0.75 if self._weather.dark else 0.0)

    def _actors(self, time: float, here: float, cells: list[Cell]) -> list[Actor]:
        actors = self._traffic.actors(time)
        for cell in cells:
            actors += [actor for actor in cell.actors if here - 6 < actor.s < here + AHEAD]
            for crosser in cell.crossers:
                actor = crosser.at(crosser.actor.s - here)
                if actor is not None:
                    actors.append(actor)
        return actors

    def _draw_sky(self, canvas: Canvas, camera: Camera, stretch: Stretch) -> None:
        heading = float(self._road.heading(np.array(stretch.origin))) + self._yaw
        per_column = 2 * np.pi / SKY_COLUMNS
        middle = (-heading / per_column) % SKY_COLUMNS
        per_row = (SKY_HIGH - SKY_LOW) / SKY_ROWS
        horizon = SKY_HIGH / per_row
        # Image pixel -> panorama pixel; rows are tangents, columns are angles (taken as linear).
        matrix = np.array([[1 / camera.focal / per_column, 0.0, middle + SKY_COLUMNS - canvas.width / 2 / camera.focal / per_column],
                           [0.0, 1 / camera.focal / per_row, horizon - camera.horizon() / camera.focal / per_row]])
        rows = int(np.clip(camera.horizon() + 0.13 * canvas.height, 1, canvas.height))
        low = int(middle + SKY_COLUMNS - canvas.width / 2 / camera.focal / per_column) - 2
        span = int(canvas.width / camera.focal / per_column) + 6
        columns = np.arange(low, low + span) % SKY_COLUMNS
        matrix[0, 2] -= low
        cv2.warpAffine(self._sky[:, columns], matrix, (canvas.width, rows), dst=canvas.image[:rows],
                       flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)

    def _draw_ground(self, canvas: Canvas, camera: Camera, stretch: Stretch, cells: list[Cell], actors: list[Actor],
                     light: Light) -> None:
        patches = [patch for cell in cells for patch in cell.patches
                   if stretch.origin - 12 < patch.points[:, 0].mean() < stretch.origin + 95]
        cast = max(float(light.sun[2]), 0.12)
        lean = -light.sun[:2] / cast
        shadows: list[FixedArray] = []
        contacts: list[FixedArray] = []
        for actor in actors:
            length, width, height = actor_size(actor, self._heavy(actor))
            if abs(actor.s - stretch.origin) > 70:
                continue
            foot = self._footprint(stretch, actor, length, width)
            shape = camera.polygon(foot)
            if shape is not None:
                contacts.append(shape)
            if self._weather.shadow > 0.15:
                _add_shadow(camera, shadows, foot, lean * min(height, 2.5))
        if self._weather.shadow > 0.15:
            for cell in cells:
                for house in cell.houses:
                    foot = stretch.place(np.array([house.s0, house.s1]), house.d)
                    _add_shadow(camera, shadows, foot, lean * house.height)
                for tree in cell.trees:
                    if tree.s - stretch.origin < 70:
                        angle = np.linspace(0, 2 * np.pi, 9, endpoint=False)
                        wobble = tree.crown * (0.75 + 0.3 * np.sin(3 * angle + tree.s))
                        ring = stretch.place(tree.s + wobble * np.cos(angle), tree.d + wobble * np.sin(angle))
                        ring[:, :2] += lean * (tree.trunk + tree.crown * 0.6)
                        shape = camera.polygon(ring)
                        if shape is not None:
                            shadows.append(shape)
                for post in cell.posts:
                    if 0 < post.s - stretch.origin < 50:
                        foot = stretch.place(np.array([post.s, post.s + 0.12]), post.d)
                        _add_shadow(camera, shadows, foot, lean * post.height)
        ground = Ground(canvas, camera, stretch, self._layout, self._paint, self._weather, self._rough)
        ground.draw(patches, shadows, contacts)

    def _footprint(self, stretch: Stretch, actor: Actor, length: float, width: float) -> FloatArray:
        centre = stretch.place(np.array([actor.s]), actor.d)[0]
        yaw = self._yaw_of(stretch, actor)
        along = np.array([np.cos(yaw), np.sin(yaw), 0.0]) * length / 2
        across = np.array([-np.sin(yaw), np.cos(yaw), 0.0]) * width / 2
        return np.array([centre + along + across, centre + along - across, centre - along - across, centre - along + across])

    def _yaw_of(self, stretch: Stretch, actor: Actor) -> float:
        return stretch.direction(actor.s) + (-actor.yaw if self._layout.mirrored else actor.yaw)

    def _heavy(self, actor: Actor) -> float:
        return self._traffic.heavy * (0.5 if actor.kind == "parked" else 1.0)

    def _draw_upright(self, canvas: Canvas, camera: Camera, stretch: Stretch, cells: list[Cell], actors: list[Actor],
                      light: Light) -> list[Glare]:
        """Everything that stands, far to near."""
        scenery = Scenery(self.seed, canvas, camera, stretch, light)
        jobs: list[tuple[float, Callable[[], None]]] = []
        glares: list[Glare] = []
        for cell in cells:
            for house in cell.houses:
                jobs.append((scenery.distance(house.s1, house.d), lambda it=house: scenery.house(it)))  # type: ignore[misc]
            for barrier in cell.barriers:
                jobs.append((scenery.distance(barrier.s1, barrier.d) - 0.5, lambda it=barrier: scenery.barrier(it)))  # type: ignore[misc]
            for tree in cell.trees:
                jobs.append((scenery.distance(tree.s, tree.d), lambda it=tree: scenery.tree(it)))  # type: ignore[misc]
            for post in cell.posts:
                jobs.append((scenery.distance(post.s, post.d), lambda it=post: scenery.post(it)))  # type: ignore[misc]
        for actor in actors:
            jobs.append((scenery.distance(actor.s, actor.d),
                         lambda it=actor: self._draw_actor(canvas, camera, stretch, light, it, glares)))  # type: ignore[misc]
        for distance, job in sorted(jobs, key=lambda pair: -pair[0]):
            job()
        return glares

    def _draw_actor(self, canvas: Canvas, camera: Camera, stretch: Stretch, light: Light, actor: Actor,
                    glares: list[Glare]) -> None:
        owner = canvas.new_instance(actor.class_id)
        if owner is None:
            return
        position = stretch.place(np.array([actor.s]), actor.d)[0]
        yaw = self._yaw_of(stretch, actor)
        if actor.kind in ("vehicle", "parked"):
            body = vehicle(actor.seed, self._heavy(actor))
            grain = body.grain
            shape = paint_mesh(canvas, camera, light, body.mesh, position, yaw, owner)
        else:
            looks = person(actor.seed)
            grain = looks.grain
            if actor.kind == "walker":
                figure = walker(looks, actor.gone, actor.standing)
            elif actor.kind == "cyclist":
                figure = cyclist(looks, actor.gone)
                paint_wheels(canvas, camera, light, position, yaw, owner)
            else:
                figure = motorcyclist(looks)
            shape = figure.paint(canvas, camera, light, position, yaw, owner)
        if shape is None:
            return
        box = canvas.box(shape)
        if box is not None and box[2] - box[0] > 14:
            canvas.roughen(owner, box, grain)


def _add_shadow(camera: Camera, shadows: list[FixedArray], foot: FloatArray, shift: FloatArray) -> None:
    moved = foot.copy()
    moved[:, :2] += shift
    both = camera.polygon(foot), camera.polygon(moved)
    ground = np.concatenate([foot, moved])
    # The hull on the ground, not in the image: part of it may lie behind the camera.
    hull = cv2.convexHull(ground[:, :2].astype(np.float32), returnPoints=False)
    shape = camera.polygon(ground[hull[:, 0]])
    if shape is not None and any(part is not None for part in both):
        shadows.append(shape)


def _draw_paint(rng: np.random.Generator) -> Paint:
    asphalt = np.full(3, rng.uniform(48, 118)) * (1 + rng.normal(0, 0.02, 3))
    green = np.array([rng.uniform(55, 115), rng.uniform(80, 125), rng.uniform(35, 62)])
    verge = green if rng.random() < 0.7 else np.array([150.0, 130.0, 100.0]) * rng.uniform(0.6, 1.1)
    walk = np.array([1.0, 0.97, 0.93]) * rng.uniform(105, 190) + rng.uniform(-8, 8, 3)
    bright = np.clip(asphalt.mean() + rng.uniform(75, 140), 0, 245)
    return Paint(asphalt, asphalt * rng.uniform(0.85, 1.12), walk * rng.uniform(0.85, 1.15), walk, verge,
                 np.full(3, bright), np.array([1.0, rng.uniform(0.7, 0.85), rng.uniform(0.15, 0.4)]) * min(bright * 1.02, 240))


def number(canvas: Canvas) -> npt.NDArray[np.uint16]:
    """Owners to panoptic values: things that are visible are numbered 1.. within their class, the rest vanish."""
    seen = cv2.calcHist([canvas.owners], [0], None, [256], [0, 256]).ravel()
    table = np.zeros(256, dtype=np.uint16)
    table[:FIRST_THING] = np.arange(FIRST_THING)
    count: dict[int, int] = {}
    for owner in range(FIRST_THING, len(canvas.owner_class)):
        if seen[owner]:
            class_id = canvas.owner_class[owner]
            count[class_id] = count.get(class_id, 0) + 1
            table[owner] = class_id * THING + count[class_id]
    panoptic: npt.NDArray[np.uint16] = np.asarray(cv2.LUT(canvas.owners, table), dtype=np.uint16)
    return panoptic
