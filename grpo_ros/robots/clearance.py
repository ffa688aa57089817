"""LinkClearance: how near a robot's links come to the table and to each other, batched.

The links are the capsules of `capsules.py`, so a distance is at most the true one between the
URDF's shapes. Links joined by fixed joints move as one body. What a gripper moves hangs on the
arm's last link, and one capsule encloses it where it is open and where it is closed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from grpo_ros.elementary import Array
from grpo_ros.robots.capsules import Capsule, enclosing, link_capsules, without_enclosed
from grpo_ros.robots.chain_frames import ChainFrames, LinkFrames
from grpo_ros.robots.robot import Robot
from grpo_ros.robots.urdf import Urdf, parse_urdf

NUM_SAMPLES = 400
ALWAYS = 0.95
"""Links that are too near in this share of poses drawn within the joints' limits always are."""
LEVEL = 1e-6
"""Largest part of an axis that is not upright, or not flat, rad."""
POINT = 1e-14
"""Squared length up to which a segment counts as a point, m^2."""
PARALLEL = 1e-12
"""Squared sine below which two segments count as parallel."""


class LinkClearance:
    """Distances of a robot's links for its arm's joint positions; stateless.

    Watched above the table are the links whose height the arm can change, without the gripper's:
    from the link that holds the gripper's driver joint on, the workspace of the tip holds them.
    Watched pairs are those of different bodies that do not follow each other in the arm; as in
    MoveIt's allowed collision matrix, pairs that are nearer than `safety.self_clearance_m` at
    home, or in at least 95 % of poses, are left out. Row i of a result depends on row i of the
    argument alone.

    Args:
        robot: whose URDF gives the shapes.

    Attributes:
        pairs: names of the links that are watched against each other.
        above_table: names of the links that are watched above the table; none without a table.

    Raises:
        RobotError: a link has meshes alone, or a shape of no size, and anything is watched.
    """

    def __init__(self, robot: Robot) -> None:
        urdf = parse_urdf(robot.urdf, robot.urdf_path.name)
        self._frames = ChainFrames(robot.chain)
        self._table = robot.safety.table_height_m
        bodies = _bodies(robot, urdf)
        self._body = np.array([i for i, body in enumerate(bodies) for _ in body], dtype=np.intp)
        capsules = [capsule for body in bodies for capsule in body]
        self._links = tuple(capsule.link for capsule in capsules)
        self._radius = np.array([capsule.radius for capsule in capsules])[:, None]
        start = _points([capsule.start for capsule in capsules])
        along = _points([capsule.end - capsule.start for capsule in capsules])
        self._segments = np.stack([start, along])
        self._watch(self._candidates())
        self._watch(self._without_near(robot))
        self.pairs = tuple(dict.fromkeys(zip(*self._names(), strict=True)))
        hand = _gripper_links(robot, urdf)
        moved = self._body > _num_level(robot)
        self._lowest = np.array(
            [
                i
                for i, link in enumerate(self._links)
                if self._table is not None and moved[i] and link not in hand
            ],
            dtype=np.intp,
        )
        self._lowest_radius = self._radius[self._lowest] + (self._table or 0.0)
        self.above_table = tuple(dict.fromkeys(self._links[i] for i in self._lowest))

    # ---------------------------------------------------------------- distances

    def both(self, q: Array, frames: LinkFrames | None = None) -> tuple[Array, Array]:
        """Return height above the table (N,) and distance between links (N,), m.

        The height is that of the lowest watched point, infinite where there is no table; the
        distance that of the closest watched pair, negative in contact, infinite without a pair.

        Args:
            q: (A, N) float64, batch last, rad or m. frames: of q, where they are known already.
        """
        placed = self._place(frames or self._frames.at(q))
        heights, distances = self._heights(placed), self._distances(placed)
        return heights.min(axis=0, initial=np.inf), distances.min(axis=0, initial=np.inf)

    def closest_links(self, q: Array) -> str:
        """Return the names of the watched pair that is closest in the first row of q (A, N)."""
        if not len(self._first):
            return "no links"
        distances = self._distances(self._place(self._frames.at(q[:, :1])))
        pair = int(np.argmin(distances[:, 0]))
        return f"'{self._links[self._first[pair]]}' and '{self._links[self._second[pair]]}'"

    def lowest_link(self, q: Array) -> str:
        """Return the name of the watched link that is lowest in the first row of q (A, N)."""
        if not len(self._lowest):
            return "no link"
        heights = self._heights(self._place(self._frames.at(q[:, :1])))
        return f"'{self._links[self._lowest[int(np.argmin(heights[:, 0]))]]}'"

    def _heights(self, placed: Array) -> Array:
        """Return the height (watched capsules, N) of each one's lowest point."""
        if self._table is None:
            return np.zeros((0, placed.shape[3]))
        z, rise = np.take(placed[:, 2], self._lowest, axis=1)
        heights: Array = np.minimum(z, z + rise) - self._lowest_radius
        return heights

    def _distances(self, placed: Array) -> Array:
        """Return the distance (P, N) of every watched pair of capsules."""
        num = len(self._first)
        start, along = np.take(placed, self._ends, axis=2)
        apart = start[:, :num] - start[:, num:]
        squared = _segments_squared(apart, along[:, :num], along[:, num:], self._lengths)
        distance: Array = np.sqrt(squared)
        distance -= self._radii
        return distance

    def _place(self, frames: LinkFrames) -> Array:
        """Return start and direction (2, 3, C, N) of every capsule's segment in the base frame."""
        turned = np.take(frames.rotation, self._body, axis=2)
        placed: Array = turned[:, 0] * self._segments[:, None, 0]
        placed += turned[:, 1] * self._segments[:, None, 1]
        placed += turned[:, 2] * self._segments[:, None, 2]
        placed[0] += np.take(frames.origin, self._body, axis=1)
        return placed

    # ---------------------------------------------------------------- what is watched

    def _candidates(self) -> list[tuple[int, int]]:
        """Return the pairs of capsules on bodies that do not follow each other."""
        indices = itertools.combinations(range(len(self._links)), 2)
        return [(i, j) for i, j in indices if self._body[j] - self._body[i] > 1]

    def _without_near(self, robot: Robot) -> list[tuple[int, int]]:
        """Return the watched pairs without the links that are near at home, or always."""
        least = robot.safety.self_clearance_m

        def distances(q: Array) -> Array:
            return self._distances(self._place(self._frames.at(q)))

        home = robot.home[: robot.chain.num_joints].numpy()[:, None]
        arm = robot.limits[: robot.chain.num_joints]
        lower, upper = (
            np.clip([[getattr(limit, key)] for limit in arm], -np.pi, np.pi)
            for key in ("lower", "upper")
        )
        drawn = np.random.default_rng(0).uniform(size=(len(arm), NUM_SAMPLES))
        near_home = distances(home)[:, 0] < least
        near = (distances(lower + (upper - lower) * drawn) < least).astype(np.float64)
        names = list(zip(*self._names(), strict=True))
        allowed = {name for name, is_near in zip(names, near_home, strict=True) if is_near}
        for name in dict.fromkeys(names):
            of_pair = near[[other == name for other in names]]
            if of_pair.max(axis=0).mean() >= ALWAYS:
                allowed.add(name)
        indices = zip(self._first.tolist(), self._second.tolist(), strict=True)
        return [pair for pair, name in zip(indices, names, strict=True) if name not in allowed]

    def _watch(self, pairs: Sequence[tuple[int, int]]) -> None:
        indices = np.array(pairs, dtype=np.intp).reshape(-1, 2)
        self._first, self._second = indices[:, 0], indices[:, 1]
        self._ends = np.concatenate([self._first, self._second])
        self._radii = self._radius[self._first] + self._radius[self._second]
        along = self._segments[1]
        length = (along * along).sum(axis=0)
        self._lengths = _divisors(length[self._first], length[self._second])

    def _names(self) -> tuple[list[str], list[str]]:
        return (
            [self._links[i] for i in self._first],
            [self._links[j] for j in self._second],
        )


def _divisors(dd: Array, ee: Array) -> tuple[Array, Array, Array]:
    """Return what `_segments_squared` divides by, from the squared lengths (P, 1) of segments.

    A segment of no length has products of 0: any divisor gives its one point.
    """
    dd, ee = np.where(dd > POINT, dd, 1.0), np.where(ee > POINT, ee, 1.0)
    return dd, ee, PARALLEL * dd * ee


def _segments_squared(
    apart: Array, first: Array, second: Array, lengths: tuple[Array, Array, Array]
) -> Array:
    """Return the squared distance (P, N) between segments.

    For points p + s d on the first and q + t e on the second, with r = p - q, the nearest have
    s = ((d e)(e r) - (d r)(e e)) / ((d d)(e e) - (d e)^2) held within [0, 1], then
    t = ((d e) s + e r) / (e e) held within [0, 1], then s = ((d e) t - d r) / (d d) likewise.
    Ericson, Real-Time Collision Detection, section 5.1.9. Where the segments are parallel, the
    first s may be anything within [0, 1].

    Args:
        apart: (3, P, N) r. first, second: (3, P, N) d and e.
        lengths: (P, 1) d d, e e and the least divisor of s, none of them 0; see `_divisors`.
    """
    dd, ee, least = lengths
    d_e, d_r, e_r = _dot(first, second), _dot(first, apart), _dot(second, apart)
    across = dd * ee - d_e * d_e
    s = _unit((d_e * e_r - d_r * ee) / np.maximum(across, least, out=across))
    t = _unit((d_e * s + e_r) / ee)
    s = _unit((d_e * t - d_r) / dd)
    between = s * first
    between += apart
    between -= t * second
    return _dot(between, between)


def _dot(left: Array, right: Array) -> Array:
    """Return the dot products (P, N) of vectors (3, P, N), summed in a fixed order."""
    products = left * right
    total: Array = products[0]
    total += products[1]
    total += products[2]
    return total


def _unit(share: Array) -> Array:
    """Return the array, held within [0, 1] in place."""
    np.maximum(share, 0.0, out=share)
    return np.minimum(share, 1.0, out=share)


def _points(points: Sequence[Array]) -> Array:
    """Return points as (3, C, 1)."""
    return np.array(points, dtype=np.float64).reshape(-1, 3).T[..., None].copy()


def _num_level(robot: Robot) -> int:
    """Return how many joints from the base on turn upright or slide flat: heights stay."""
    chain = robot.chain
    jacobian = chain.pose(robot.home[: chain.num_joints].numpy()[:, None]).jacobian[..., 0]
    for j, kind in enumerate(chain.joint_kinds):
        linear, angular = jacobian[:3, j], jacobian[3:, j]
        tilt = abs(linear[2]) if kind == "prismatic" else np.abs(angular[:2]).max()
        if tilt > LEVEL:
            return j
    return chain.num_joints


def _gripper_links(robot: Robot, urdf: Urdf) -> frozenset[str]:
    """Return the link that holds the gripper's driver joint, and all that hang on it."""
    if robot.gripper is None:
        return frozenset()
    found = {urdf.joint(robot.gripper.joint).parent}
    for _ in urdf.links:
        found |= {joint.child for joint in urdf.joints if joint.parent in found}
    return frozenset(found)


def _bodies(robot: Robot, urdf: Urdf) -> list[list[Capsule]]:
    """Return the capsules of the base and of what each arm joint moves, in that body's frame.

    None where nothing is watched: then a link may have meshes alone.
    """
    safety = robot.safety
    if safety.table_height_m is None and safety.self_clearance_m == 0.0:
        return []
    gripper = robot.gripper
    positions = (0.0,) if gripper is None else (gripper.open_position_m, gripper.closed_position_m)
    driven = () if gripper is None else (gripper.joint, *gripper.mimic_joints)
    placements = [_place_links(urdf, robot, dict.fromkeys(driven, at)) for at in positions]
    bodies: list[list[Capsule]] = [[] for _ in range(robot.chain.num_joints + 1)]
    capsules = link_capsules(robot.urdf, robot.urdf_path.name)
    for link in dict.fromkeys(capsule.link for capsule in capsules):
        placed = [placement[link] for placement in placements]
        moved = [
            [c.moved(at.rotation, at.translation) for c in capsules if c.link == link]
            for at in placed
        ]
        is_gripped = any(at != placed[0] for at in placed)
        bodies[placed[0].body] += (
            [enclosing([c for group in moved for c in group])] if is_gripped else moved[0]
        )
    return [without_enclosed(body) for body in bodies]


@dataclasses.dataclass(frozen=True, eq=False)
class _Placement:
    """Where a link is in the frame of the body that it moves with."""

    body: int
    rotation: Array
    translation: Array

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Placement)
            and np.array_equal(self.rotation, other.rotation)
            and np.array_equal(self.translation, other.translation)
        )


def _place_links(urdf: Urdf, robot: Robot, rest: Mapping[str, float]) -> dict[str, _Placement]:
    """Return the placement of every link; joints beside the arm's stand at `rest`, or near 0."""
    by_child = {joint.child: joint for joint in urdf.joints}
    index = {name: i for i, name in enumerate(robot.chain.joint_names, start=1)}

    def place(link: str) -> _Placement:
        joint = by_child.get(link)
        if joint is None:
            return _Placement(0, np.eye(3), np.zeros(3))
        if joint.name in index:
            return _Placement(index[joint.name], np.eye(3), np.zeros(3))
        parent = place(joint.parent)
        position = rest.get(joint.name, min(max(0.0, joint.lower), joint.upper))
        turn, slide = joint.displacement(position)
        translation = joint.translation + joint.rotation @ slide
        return _Placement(
            parent.body,
            parent.rotation @ joint.rotation @ turn,
            parent.rotation @ translation + parent.translation,
        )

    return {link: place(link) for link in urdf.links}
