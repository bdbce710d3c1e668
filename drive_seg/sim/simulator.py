"""The simulator: any frame of an endless drive, with the truth of every pixel."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drive_seg.errors import ConfigError
from drive_seg.frame import Box, Instance, Lane
from drive_seg.labels import DRIVING, PANOPTIC_DIVISOR, PANOPTIC_UNLABELLED, mask_of

from .camera import Camera, intrinsics, rotation
from .canvas import Canvas
from .cell import Cell
from .chance import chance
from .effects import Effects
from .ground import Ground
from .lines import lane_truth
from .mesh import Light
from .road import Road, Stretch, draw_layout
from .sky import paint_sky, panorama
from .stage import Stage
from .surface import Patch, draw_paint
from .textures import ground_tile, halves
from .traffic import AHEAD, Actor, Traffic
from .weather import WEATHERS, draw_weather
from .world import World

_SIGHT = 135.0
_MIN_SIDE, _MAX_SIDE = 32, 8192


@dataclass(frozen=True, eq=False)
class SimFrame:
    """One frame: picture and truth.

    `image` uint8 (H, W, 3) RGB. `panoptic` uint16 (H, W): stuff pixel = class id, thing pixel =
    class id * 1000 + k with k = 1.. within frame and class, 65535 = too small to be labelled.
    `tracks`: by panoptic id of a thing, the number it has in all frames of the drive.
    `lanes` from left to right, see `lines.lane_truth`. `stamp_ns` = index / fps in nanoseconds.
    """

    image: npt.NDArray[np.uint8]
    panoptic: npt.NDArray[np.uint16]
    tracks: Mapping[int, int]
    index: int
    stamp_ns: int
    lanes: tuple[Lane, ...] = ()

    def instances(self) -> tuple[Instance, ...]:
        """The labelled things, by panoptic id; their scores are 1."""
        places = np.flatnonzero((self.panoptic >= PANOPTIC_DIVISOR) & (self.panoptic != PANOPTIC_UNLABELLED))
        values = self.panoptic.reshape(-1)[places]
        order = np.argsort(values, kind="stable")
        present, starts, areas = np.unique(values[order], return_index=True, return_counts=True)
        if not present.size:
            return ()
        rows, columns = np.divmod(places[order], self.panoptic.shape[1])
        first_row, last_row = np.minimum.reduceat(rows, starts), np.maximum.reduceat(rows, starts)
        first, last = np.minimum.reduceat(columns, starts), np.maximum.reduceat(columns, starts)
        table = np.stack([present, areas, first, first_row, last, last_row], axis=1)
        return tuple(
            Instance(
                value,
                value // PANOPTIC_DIVISOR,
                DRIVING[value // PANOPTIC_DIVISOR].name,
                1.0,
                Box(x, y, x_end - x + 1, y_end - y + 1),
                area,
                self.tracks[value],
            )
            for value, area, x, y, x_end, y_end in table.tolist()
        )

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """Class id per pixel, uint8 (H, W); 255 where a thing is too small to be labelled."""
        return mask_of(self.panoptic)


class Simulator:
    """A drive drawn from a seed. Frames may be asked for in any order; equal arguments give equal bytes.

    `weather` is one of clear, overcast, dusk, night, rain, fog; None draws it from the seed.

    Raises:
        ConfigError: the seed or a side is no whole number, a side or the rate out of range, or the weather unknown.
    """

    def __init__(
        self,
        seed: int = 0,
        width: int = 1280,
        height: int = 720,
        fps: float = 30.0,
        weather: str | None = None,
    ) -> None:
        seed, width, height = _whole("seed", seed), _whole("width", width), _whole("height", height)
        for name, side in (("width", width), ("height", height)):
            if not _MIN_SIDE <= side <= _MAX_SIDE:
                raise ConfigError(f"{name}: expected {_MIN_SIDE}..{_MAX_SIDE} pixels, got {side}")
        if not isinstance(fps, float | int | np.number) or not 0 < fps <= 1000:
            raise ConfigError(f"fps: expected a rate above 0 and up to 1000 Hz, got {fps}")
        if weather is not None and weather not in WEATHERS:
            raise ConfigError(f"weather: expected one of {', '.join(WEATHERS)} or None, got {weather!r}")
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
        self._paint = draw_paint(chance(seed, 5))
        self._effects = Effects(seed, width, height, self._weather)
        self._rough = halves(ground_tile(seed))
        self._sky = panorama(seed, self._weather)

    def __reduce__(self) -> tuple[type[Simulator], tuple[int, int, int, float, str]]:
        """Pickled as what it is drawn from: its caches stay behind."""
        return Simulator, (self.seed, self.width, self.height, self.fps, self.weather)

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
        """Frame number `index` (0 or more) of the drive.

        Raises:
            ConfigError: there is none of this number.
        """
        index = _whole("index", index)
        if index < 0:
            raise ConfigError(f"index: expected 0 or more, got {index}")
        time = index / self.fps
        stretch = self._road.stretch(self._traffic.ego.travelled(time))
        camera = self._camera(time)
        canvas = Canvas(self.width, self.height)
        cells = self._world.around(stretch.origin, _SIGHT, 14.0)
        actors = self._actors(time, stretch.origin, cells)
        stage = Stage(canvas, camera, stretch, self._light(stretch), self.seed)
        ground = Ground(
            canvas, camera, stretch, self._layout, self._paint, self._weather, self._rough, self._world.tracks
        )

        heading = float(self._road.heading(np.array(stretch.origin))) + self._yaw
        paint_sky(canvas, camera, self._sky, heading)
        ground.draw(_patches(cells, stretch.origin), stage.shadows(cells, actors), stage.contacts(actors))
        stage.draw(cells, actors)
        self._effects.finish(canvas, index, camera.horizon(), stage.glares)
        lanes = lane_truth(self._layout.lines, canvas.owners, camera, stretch, self._weather.sight)
        return SimFrame(canvas.image, *canvas.truth(), index, round(index * 1e9 / self.fps), lanes)

    def _camera(self, time: float) -> Camera:
        phases = self._phases
        shake = 0.0022 * np.sin(9.1 * time + phases[0]) + 0.0035 * np.sin(2.3 * time + phases[1])
        sway = 0.12 * np.sin(0.31 * time + phases[2]) + 0.05 * np.sin(0.83 * time + phases[3])
        side = self._layout.lane_centre(self._layout.ego) + sway
        position = np.array(
            [
                0.0,
                -side if self._layout.mirrored else side,
                self._height + 0.012 * np.sin(5.3 * time + phases[4]),
            ]
        )
        grade = (
            float(
                self._road.elevation(np.array(self._traffic.ego.travelled(time) + 2.0))
                - self._road.elevation(np.array(self._traffic.ego.travelled(time) - 2.0))
            )
            / 4
        )
        yaw = self._yaw + 0.006 * np.cos(0.31 * time + phases[2])
        roll = self._roll + 0.003 * np.sin(1.9 * time + phases[5])
        return Camera(self.width, self.height, self._focal, position, rotation(yaw, self._pitch + shake + grade, roll))

    def _light(self, stretch: Stretch) -> Light:
        azimuth = self._weather.sun_azimuth - float(self._road.heading(np.array(stretch.origin)))
        level = np.cos(self._weather.sun_elevation)
        sun = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(self._weather.sun_elevation)])
        return Light(self._weather, [], sun, 0.75 if self._weather.dark else 0.0)

    def _actors(self, time: float, here: float, cells: list[Cell]) -> list[Actor]:
        actors = self._traffic.actors(time)
        for cell in cells:
            still = [*cell.actors, *(crosser.at(crosser.actor.s - here) for crosser in cell.crossers)]
            actors += [actor for actor in still if here - 6 < actor.s < here + AHEAD]
        return actors


def _whole(name: str, value: int) -> int:
    """As Python's own integer: those of NumPy overflow where random numbers are drawn."""
    try:
        return operator.index(value)
    except TypeError:
        raise ConfigError(f"{name}: expected a whole number, got {value!r:.80}") from None


def _patches(cells: list[Cell], here: float) -> list[Patch]:
    return [patch for cell in cells for patch in cell.patches if here - 12 < patch.points[0, 0] < here + 95]
