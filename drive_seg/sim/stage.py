"""Everything that stands on the ground, painted far to near, and the shadows it throws."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .camera import NEAR, Camera, FixedArray, FloatArray
from .canvas import Canvas
from .cell import Cell
from .mesh import Glare, Light, paint_mesh
from .order import Plans, far_to_near
from .people import person, walker
from .riders import cyclist, motorcyclist, paint_wheels
from .road import Stretch
from .scenery import Barrier, House, Post, Scenery, Tree
from .traffic import Actor, actor_size
from .vehicles import vehicle

_TRUNK = 0.1  # metres, half the width of what stands on a point
_SHADOWS_TO = 70.0  # metres; beyond, a shadow is a few pixels
_CIRCLE = np.linspace(0, 2 * np.pi, 9, endpoint=False)

Item = House | Barrier | Tree | Post | Actor


class Stage:
    """One frame's upright things."""

    def __init__(self, canvas: Canvas, camera: Camera, stretch: Stretch, light: Light, seed: int) -> None:
        self._canvas = canvas
        self._camera = camera
        self._stretch = stretch
        self._light = light
        self._scenery = Scenery(seed, canvas, camera, stretch, light)

    @property
    def glares(self) -> list[Glare]:
        """The lamps painted so far."""
        return self._light.glares

    def draw(self, cells: list[Cell], actors: list[Actor]) -> None:
        """The painter's algorithm: what nothing else hides comes last."""
        items: list[tuple[Item, float, float]] = []
        before: Sequence[House] = ()
        hidden_ends: set[int] = set()
        for cell in cells:
            items += [(house, house.s1, 22.0) for house in cell.houses]
            hidden_ends |= self._hidden_ends(cell.houses, before)
            before = cell.houses
            items += [(barrier, barrier.s1, 14.0) for barrier in cell.barriers]
            items += [(tree, tree.s, tree.crown + 0.5) for tree in cell.trees]
            items += [(post, post.s, 3.5) for post in cell.posts]
        # What the haze has swallowed is neither seen nor true.
        visible = self._stretch.origin + 3.0 * self._light.weather.sight
        items += [(actor, actor.s, 7.0) for actor in actors if actor.s < visible]
        feet = self._stretch.place(np.array([s for _, s, _ in items]), np.array([item.d for item, _, _ in items]))
        moved = self._camera.to_camera(feet)
        slope = self._camera.width / 2 / self._camera.focal
        reach = np.array([margin for _, _, margin in items])
        seen = (np.abs(moved[:, 0]) < slope * np.maximum(moved[:, 2], 0) + reach * (1 + slope)) & (moved[:, 2] > -reach)
        there = np.flatnonzero(seen)
        for index in there[self._order([items[index][0] for index in there], moved[there, 2])]:
            item = items[index][0]
            self._paint(item, feet[index], moved[index], id(item) not in hidden_ends)

    def _order(self, items: list[Item], depths: FloatArray) -> list[int]:
        """Far to near; by `depths` (N,), metres, where no rectangle says who hides whom."""
        if not items:
            return []
        places = np.array([_place(item) for item in items])
        middles = self._stretch.place(places[:, 0], places[:, 1])
        yaws = np.array(
            [
                self._yaw(item) if isinstance(item, Actor) else self._stretch.direction(s)
                for item, s in zip(items, places[:, 0], strict=True)
            ]
        )
        along = np.stack([np.cos(yaws), np.sin(yaws)], axis=1)
        moved = self._camera.to_camera(middles)
        away = np.maximum(np.hypot(moved[:, 0], moved[:, 2]), 1e-6)
        ahead = np.arctan2(moved[:, 0], moved[:, 2])
        half = np.where(away > places[:, 4], np.arcsin(np.minimum(places[:, 4] / away, 1)), np.pi)
        plans = Plans(middles[:, :2], along, places[:, 2:4])
        return far_to_near(plans, self._camera.position[:2], depths, np.stack([ahead - half, ahead + half], axis=1))

    def _paint(self, item: Item, foot: FloatArray, moved: FloatArray, open_end: bool) -> None:
        if isinstance(item, Actor):
            self._actor(item, foot)
        elif isinstance(item, House):
            self._scenery.house(item, open_end)
        elif isinstance(item, Barrier):
            self._scenery.barrier(item)
        elif isinstance(item, Tree):
            self._scenery.tree(item, foot, moved)
        else:
            self._scenery.post(item, foot)

    @staticmethod
    def _hidden_ends(houses: Sequence[House], before: Sequence[House]) -> set[int]:
        """The houses (by identity) whose end wall stands against the house before."""
        return {
            id(house)
            for house in houses
            for other in before
            if house.d * other.d > 0
            and other.s1 > house.s0 - 0.05
            and other.height >= house.height
            and abs(other.d) <= abs(house.d) + 0.05
        }

    def _yaw(self, actor: Actor) -> float:
        return self._stretch.direction(actor.s) + (-actor.yaw if self._stretch.mirrored else actor.yaw)

    def _actor(self, actor: Actor, position: FloatArray) -> None:
        owner = self._canvas.new_instance(actor.class_id, actor.number)
        if owner is None:
            return
        canvas, camera, light, yaw = self._canvas, self._camera, self._light, self._yaw(actor)
        if actor.kind == "vehicle":
            body = vehicle(actor.seed)
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
        box = None if shape is None else canvas.box(shape)
        if box is not None and box[2] - box[0] > 14:
            canvas.roughen(owner, box, grain)

    def contacts(self, actors: list[Actor]) -> list[FixedArray]:
        """The dark ground under every actor, fixed point polygons."""
        corners, _ = self._footprints(actors)
        points = self._camera.to_camera(corners.reshape(-1, 3))
        points = points.reshape(-1, 4, 3)[points[:, 2].reshape(-1, 4).min(axis=1, initial=np.inf) >= NEAR]
        return list(self._camera.fixed(points.reshape(-1, 3)).reshape(-1, 4, 2))

    def shadows(self, cells: list[Cell], actors: list[Actor]) -> list[FixedArray]:
        """The shadows the sun throws on the ground, fixed point polygons."""
        if self._light.weather.shadow <= 0.15:
            return []
        lean = -self._light.sun[:2] / max(float(self._light.sun[2]), 0.12)
        hulls = [_swept(foot, lean * min(height, 2.5)) for foot, height in zip(*self._footprints(actors), strict=True)]
        for cell in cells:
            for house in cell.houses:
                foot = self._stretch.place(np.array([house.s0, house.s1]), house.d)
                hulls.append(_swept(foot, lean * house.height))
            for tree in cell.trees:
                if self._near(tree.s):
                    wobble = tree.crown * (0.75 + 0.3 * np.sin(3 * _CIRCLE + tree.s))
                    ring = self._stretch.place(tree.s + wobble * np.cos(_CIRCLE), tree.d + wobble * np.sin(_CIRCLE))
                    ring[:, :2] += lean * (tree.trunk + tree.crown * 0.6)
                    hulls.append(ring)
            for post in cell.posts:
                if self._near(post.s):
                    foot = self._stretch.place(np.array([post.s, post.s + 0.12]), post.d)
                    hulls.append(_swept(foot, lean * post.height))
        shapes = [self._camera.polygon(hull) for hull in hulls]
        return [shape for shape in shapes if shape is not None]

    def _near(self, s: float) -> bool:
        return abs(s - self._stretch.origin) < _SHADOWS_TO

    def _footprints(self, actors: list[Actor]) -> tuple[FloatArray, FloatArray]:
        """Corners (N, 4, 3) and heights (N,) of the actors whose shadows are seen."""
        near = [actor for actor in actors if self._near(actor.s)]
        if not near:
            return np.zeros((0, 4, 3)), np.zeros(0)
        sizes = np.array([actor_size(actor) for actor in near])
        yaws = np.array([self._yaw(actor) for actor in near])
        places = np.array([(actor.s, actor.d) for actor in near])
        centres = self._stretch.place(places[:, 0], places[:, 1])
        level = np.zeros(len(near))
        along = np.stack([np.cos(yaws), np.sin(yaws), level], axis=1) * sizes[:, :1] / 2
        across = np.stack([-np.sin(yaws), np.cos(yaws), level], axis=1) * sizes[:, 1:2] / 2
        corners = [along + across, along - across, -along - across, across - along]
        return centres[:, None] + np.stack(corners, axis=1), sizes[:, 2]


def _place(item: Item) -> tuple[float, float, float, float, float]:
    """Of an item: the middle of its rectangle on the ground (s, d), half its length and width, and how far it reaches
    from there to the sides; metres."""
    if isinstance(item, Actor):
        length, width, _ = actor_size(item)
        return item.s, item.d, length / 2, width / 2, float(np.hypot(length, width)) / 2 + 0.3
    if isinstance(item, Tree):
        return item.s, item.d, _TRUNK, _TRUNK, item.crown + 0.5
    if isinstance(item, Post):
        return item.s, item.d, _TRUNK, _TRUNK, item.arm + 1.6
    depth = item.depth if isinstance(item, House) else 0.1
    half = (item.s1 - item.s0) / 2
    out = float(np.sign(item.d)) * depth / 2
    return (item.s0 + item.s1) / 2, item.d + out, half, depth / 2, float(np.hypot(half, depth / 2))


def _swept(foot: FloatArray, shift: FloatArray) -> FloatArray:
    """The hull on the ground of a footprint (N, 3) and its copy moved by `shift` (2,)."""
    moved = foot.copy()
    moved[:, :2] += shift
    both = np.concatenate([foot, moved])
    hull = cv2.convexHull(both[:, :2].astype(np.float32), returnPoints=False)
    swept: FloatArray = both[hull[:, 0]]
    return swept
