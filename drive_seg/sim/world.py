"""What stands still: the drive cut into cells of CELL metres, each drawn from the seed when it is needed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import count

import numpy as np

from .canvas import PEDESTRIAN, VEHICLE
from .cell import Cell, Crosser
from .chance import chance, pick
from .road import Layout
from .scenery import Barrier, House, Post, Tree
from .surface import Patch, arrow, box, wear, zebra
from .traffic import Actor, number_of
from .vehicles import draw_look, vehicle

CELL = 12.0


class World:
    """The roadside and the road's surface, cell by cell."""

    def __init__(self, seed: int, layout: Layout, heavy: float) -> None:
        rng = chance(seed, 601)
        self._seed = seed
        self._layout = layout
        self._heavy = heavy
        town = layout.environment in ("city", "suburb")
        self._set_back = float(rng.uniform(0.0, 4.0) if layout.environment == "city" else rng.uniform(3, 10))
        self._storeys = float(rng.uniform(6, 26) if layout.environment == "city" else rng.uniform(4.5, 8))
        self._built = {"city": 0.93, "suburb": 0.7, "rural": 0.08, "highway": 0.05}[layout.environment]
        self._trees = float(rng.uniform(0.0, 0.9)) * (0.6 if layout.environment == "city" else 1.0)
        self._parked = float(rng.beta(2, 1))
        self._worn = float(rng.beta(1.2, 1.6))
        self.tracks = 1.0 - 0.16 * self._worn if self._worn > 0.3 else 1.0
        self._junctions = {"city": 0.75, "suburb": 0.55, "rural": 0.12, "highway": 0.0}[layout.environment]
        self._people = float(rng.beta(1.4, 1.6)) * (1.0 if layout.environment == "city" else 0.4 if town else 0.05)
        self._lamp_every = int(rng.integers(2, 5))
        self._barrier = pick(
            rng,
            ("rail", "none", "fence", "hedge", "wall"),
            (0.7, 0.3, 0, 0, 0.2)
            if layout.environment == "highway"
            else (0.25, 0.4, 0.2, 0.1, 0)
            if layout.environment == "rural"
            else (0, 0.2, 0.3, 0.35, 0.15),
        )
        self._post_colour = np.full(3, float(rng.uniform(60, 175)))
        self.cell = lru_cache(maxsize=96)(self._peopled)

    def around(self, s: float, ahead: float, behind: float) -> list[Cell]:
        """The cells from s - behind to s + ahead."""
        return [
            self.cell(index)
            for index in range(int(np.floor((s - behind) / CELL)), int(np.floor((s + ahead) / CELL)) + 1)
        ]

    def _junction(self, index: int) -> bool:
        rng = chance(self._seed, 602, index // 9)
        return bool(rng.random() < self._junctions) and int(rng.integers(9)) == index % 9

    def _peopled(self, index: int) -> Cell:
        """A cell, everybody in it with a number."""
        cell = self._cell(index)
        numbers = (number_of(index, place, moves=False) for place in count())
        return replace(
            cell,
            actors=[replace(actor, number=number) for actor, number in zip(cell.actors, numbers, strict=False)],
            crossers=[
                replace(crosser, actor=replace(crosser.actor, number=number))
                for crosser, number in zip(cell.crossers, numbers, strict=False)
            ],
        )

    def _cell(self, index: int) -> Cell:
        rng = chance(self._seed, 603, index)
        s = index * CELL
        patches = wear(rng, self._layout, self._worn, s, CELL)
        if self._junction(index):
            return self._crossing(rng, s, patches)
        layout = self._layout
        houses: list[House] = []
        barriers: list[Barrier] = []
        trees: list[Tree] = []
        posts: list[Post] = []
        actors: list[Actor] = []
        crossers: list[Crosser] = []
        for edge, walk, parking in (
            (layout.right, layout.walk_right, layout.parking_right),
            (layout.left, layout.walk_left, layout.parking_left),
        ):
            out = float(np.sign(edge))
            inner = edge + out * walk
            if rng.random() < self._built:
                houses.append(self._house(index, s, inner, out))
            for _ in range(2):
                if rng.random() < self._trees * 0.55:
                    at = (
                        edge + out * 0.9
                        if walk > 2.4 and rng.random() < 0.6
                        else inner + out * float(rng.uniform(0.7, 9))
                    )
                    trees.append(
                        Tree(
                            s + float(rng.uniform(0, CELL)),
                            at,
                            float(rng.uniform(1.4, 3.2)),
                            float(rng.uniform(1.1, 3.4)),
                            int(rng.integers(99)),
                        )
                    )
            if layout.environment in ("rural", "highway"):
                trees += [
                    Tree(
                        s + float(rng.uniform(0, CELL)),
                        inner + out * float(rng.uniform(5, 30)),
                        float(rng.uniform(0.3, 2.5)),
                        float(rng.uniform(1.2, 4.5)),
                        int(rng.integers(99)),
                    )
                    for _ in range(int(rng.integers(0, 5)))
                ]
            elif rng.random() < 0.18:
                trees.append(
                    Tree(
                        s + float(rng.uniform(0, CELL)),
                        inner + out * 0.8,
                        0.0,
                        float(rng.uniform(0.4, 1.0)),
                        int(rng.integers(99)),
                    )
                )
            chosen = self._barrier != "none" and rng.random() < (0.95 if self._barrier == "rail" else 0.65)
            if chosen and (layout.environment != "city" or self._set_back > 1.5):
                barriers.append(self._fence(rng, s, inner + out * (0.7 if self._barrier == "rail" else 0.15)))
            if index % self._lamp_every == 0 and layout.environment != "rural":
                posts.append(
                    Post(
                        s + 1.0,
                        edge + out * 0.5,
                        float(rng.uniform(5.5, 9)),
                        0.075,
                        "lamp",
                        self._post_colour,
                        float(rng.uniform(0.6, 2)),
                    )
                )
            if rng.random() < 0.22:
                kind = pick(
                    rng,
                    ("sign", "bare", "board"),
                    (0.6, 0.3, 0.1 if layout.environment != "highway" else 0.5),
                )
                posts.append(
                    Post(
                        s + float(rng.uniform(2, 10)),
                        edge + out * (0.4 if kind != "board" else 1.6),
                        float(rng.uniform(2.1, 3.2)) if kind != "board" else 4.5,
                        0.035 if kind == "sign" else 0.06,
                        kind,
                        self._post_colour,
                        0.0,
                    )
                )
            if parking:
                actors += self._park(rng, s, edge - out * 1.12, 0.0 if out < 0 or not layout.oncoming else np.pi)
            if walk:
                actors += self._stand(rng, s, edge, walk, out)
        if rng.random() < 0.10 * self._people + 0.006:
            crossers.append(self._walker(rng, s + 6, float(rng.uniform(14, 40))))
        if rng.random() < 0.06:
            patches += arrow(rng, s + 2, layout.lane_centre(int(rng.integers(layout.forward))))
        if layout.median > 1.5 and rng.random() < 0.5:
            trees.append(
                Tree(
                    s + 5,
                    layout.median / 2,
                    float(rng.choice([0.0, 1.6])),
                    float(rng.uniform(0.4, 1.2)),
                    int(rng.integers(99)),
                )
            )
        return Cell(houses, barriers, trees, posts, patches, actors, crossers)

    def _house(self, index: int, s: float, inner: float, out: float) -> House:
        # Two cells of the same side usually are one building.
        shared = chance(self._seed, 604, index // 2, int(out))
        city = self._layout.environment == "city"
        height = self._storeys * float(shared.uniform(0.6, 1.5))
        d = inner + out * (self._set_back + float(shared.uniform(0, 1.5 if city else 5)) + 0.2)
        if self._layout.environment in ("rural", "highway"):
            d += out * 14
        gap = 0.0 if city and shared.random() < 0.8 else float(shared.uniform(1, 3))
        first = index % 2 == 0
        return House(
            s + (gap if first else 0),
            s + CELL - (0 if first else gap),
            d,
            height,
            float(shared.uniform(8, 14)),
            int(shared.integers(999)),
            0.0 if city and shared.random() < 0.7 else float(shared.uniform(1.5, 3.5)),
            float(shared.uniform(0.75, 1.15)),
        )

    def _fence(self, rng: np.random.Generator, s: float, d: float) -> Barrier:
        kind = self._barrier
        colour = {
            "rail": np.full(3, 165.0),
            "hedge": np.array([58.0, 84.0, 40.0]),
            "wall": np.array([150.0, 120.0, 100.0]),
            "fence": np.array([110.0, 85.0, 62.0]) * float(rng.uniform(0.5, 1.6)),
        }[kind]
        height = {
            "rail": 0.8,
            "hedge": float(rng.uniform(0.8, 1.9)),
            "wall": float(rng.uniform(0.6, 1.6)),
            "fence": float(rng.uniform(0.8, 1.5)),
        }[kind]
        return Barrier(s, s + CELL, d, height, kind, colour)

    def _park(self, rng: np.random.Generator, s: float, d: float, yaw: float) -> list[Actor]:
        parked = []
        at = s + 0.4
        while at < s + CELL - 3.5:
            look = draw_look(rng, self._heavy * 0.5)
            length = vehicle(look).length
            if rng.random() < self._parked and at + length < s + CELL:
                turned = np.pi if rng.random() < 0.12 else 0.0
                parked.append(
                    Actor(
                        VEHICLE,
                        "vehicle",
                        look,
                        at + length / 2,
                        d + float(rng.normal(0, 0.07)),
                        yaw + turned + float(rng.normal(0, 0.02)),
                        0.0,
                        True,
                    )
                )
            at += length + float(rng.uniform(0.6, 1.6))
        return parked

    def _stand(self, rng: np.random.Generator, s: float, edge: float, walk: float, out: float) -> list[Actor]:
        if rng.random() >= self._people * 0.6:
            return []
        middle, group = s + float(rng.uniform(1, 11)), int(rng.integers(1, 5))
        return [
            Actor(
                PEDESTRIAN,
                "walker",
                int(rng.integers(1 << 31)),
                middle + float(rng.normal(0, 0.8)),
                edge + out * float(rng.uniform(0.3, max(walk - 0.2, 0.5))),
                float(rng.uniform(-np.pi, np.pi)),
                float(rng.random()),
                True,
            )
            for _ in range(group)
        ]

    def _walker(self, rng: np.random.Generator, s: float, begin: float) -> Crosser:
        ends = (self._layout.right - 1.0, self._layout.left + 1.0)
        if rng.random() < 0.5:
            ends = (ends[1], ends[0])
        look = int(rng.integers(1 << 31))
        # Across before the camera is there.
        return Crosser(
            Actor(PEDESTRIAN, "walker", look, s, 0.0, 0.0, 0.0, False),
            begin + 25,
            max(begin - 10, 6.0),
            *ends,
        )

    def _crossing(self, rng: np.random.Generator, s: float, patches: list[Patch]) -> Cell:
        """A side road with stop lines, crosswalks, arrows, lights and those who cross."""
        layout = self._layout
        half = float(rng.uniform(2.8, 4.2))
        middle = s + CELL / 2
        sides = pick(rng, ((1,), (-1,), (1, -1)))
        for side in sides:
            edge = layout.left if side > 0 else layout.right
            patches.append(
                Patch(
                    np.array(
                        [
                            [middle - half - 2.5, edge - 0.05 * side],
                            [middle - half, edge + 2.5 * side],
                            [middle - half, edge + 45.0 * side],
                            [middle + half, edge + 45.0 * side],
                            [middle + half, edge + 2.5 * side],
                            [middle + half + 2.5, edge - 0.05 * side],
                        ]
                    ),
                    asphalt=True,
                )
            )
            if rng.random() < 0.6:
                patches.append(Patch(box(middle - half, middle, edge + 1.0 * side, edge + 1.35 * side), mark=True))
        near = middle - half - 1.2
        control = rng.random()
        actors: list[Actor] = []
        crossers: list[Crosser] = []
        if control < 0.65:
            patches += zebra(rng, layout, near - 3.0, near)
            crossers += [
                self._walker(rng, near - 1.5 + float(rng.normal(0, 0.7)), float(rng.uniform(14, 45)))
                for _ in range(int(rng.integers(1, 5)))
            ]
        if control < 0.75 and rng.random() < 0.75:
            line = near - 3.8
            patches.append(
                Patch(
                    box(line - float(rng.uniform(0.3, 0.5)), line, -layout.lane * layout.forward + 0.15, -0.15),
                    mark=True,
                )
            )
        for lane in range(layout.forward):
            if rng.random() < 0.45:
                patches += arrow(rng, near - float(rng.uniform(11, 16)), layout.lane_centre(lane))
        if rng.random() < 0.6:
            patches += zebra(rng, layout, middle + half + 1.2, middle + half + 4.0)
        if rng.random() < 0.6:
            look = draw_look(rng, self._heavy)
            ends = (layout.right - 28.0, layout.left + 28.0)
            if rng.random() < 0.5:
                ends = (ends[1], ends[0])
            crossers.append(
                Crosser(
                    Actor(VEHICLE, "vehicle", look, middle + 0.3 * half, 0.0, 0.0, 0.0, False),
                    float(rng.uniform(65, 95)),
                    14.0,
                    *ends,
                )
            )
        posts: list[Post] = []
        if rng.random() < 0.5:
            posts = [
                Post(
                    near - 0.5,
                    edge + float(np.sign(edge)) * 0.5,
                    2.6 if rng.random() < 0.6 else 4.8,
                    0.06,
                    "light",
                    np.full(3, 60.0),
                    float(pick(rng, (0.0, 0.0, 2.5))),
                )
                for edge in (layout.right, layout.left)
            ]
        for edge, walk in ((layout.right, layout.walk_right), (layout.left, layout.walk_left)):
            if walk:
                actors += self._stand(rng, s - 4, edge, walk, float(np.sign(edge)))
        return Cell(posts=posts, patches=patches, actors=actors, crossers=crossers)
