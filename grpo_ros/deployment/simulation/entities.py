"""Entities: what is in the scene of a running simulation, to be found, moved, added and removed.

Entities are the robot, its tip, and every body of the task; added ones are primitives. The world
frame is the robot's base frame.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import re2
import torch
from torch import Tensor

from grpo_ros import rotations
from grpo_ros.deployment.simulation.primitives import described, named, parse_primitive
from grpo_ros.deployment.simulation.refusal import Refusal
from grpo_ros.deployment.simulation.regions import Region
from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot, TargetSimulator
from grpo_ros.errors import nearest
from grpo_ros.robots.urdf import parse_urdf
from grpo_ros.tasks.base import Body, Task
from grpo_ros.tasks.with_bodies import Pose, WithBodies

WORLD = "world"
WORLD_HALF_EXTENT_M = 100.0
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
NAMESPACE = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
FAILED = "RESULT_OPERATION_FAILED"
ORIGIN = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)

Category = Literal["object", "robot", "static"]


@dataclasses.dataclass(frozen=True)
class Entity:
    """Something in the scene.

    Attributes:
        name: unique. description: in words. tags: to filter by.
        body: the primitive that it is; None for parts of the robot.
    """

    name: str
    category: Category
    description: str
    tags: tuple[str, ...]
    body: Body | None = None


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which entities are asked for; what is empty lets all through.

    Attributes:
        pattern: extended regular expression, found anywhere in the name.
        categories: any of them. tags: any of them, or all.
        region: overlapped by the entity; parts of the robot have no bounds, and overlap nothing.
    """

    pattern: str = ""
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    needs_all_tags: bool = False
    region: Region | None = None


@dataclasses.dataclass(frozen=True)
class Spawn:
    """A primitive to be added.

    Attributes:
        resource: URI of the primitive. name: overrides the URI's.
        may_rename: whether a name that is empty or taken is replaced.
        pose: (7,) in `frame`.
        namespace: of its interfaces; a primitive has none, so it has to be empty.
    """

    resource: str
    name: str = ""
    may_rename: bool = False
    pose: Tensor = dataclasses.field(default_factory=ORIGIN.clone)
    frame: str = ""
    namespace: str = ""


class Entities:
    """The entities of a simulated robot's scene.

    Args:
        sim: whose scene it is.
        make: makes the simulator of a task with other bodies, once the present one is closed.
        lock_step: then nothing is changed within an episode.

    Attributes:
        added: what was spawned, and where.
    """

    def __init__(
        self, sim: SimulatedRobot, make: Callable[[Task], TargetSimulator], lock_step: bool
    ) -> None:
        self.sim, self._make, self.lock_step = sim, make, lock_step
        self.task, self.robot = sim.simulator.task, sim.robot
        self.added: tuple[tuple[Body, Pose], ...] = ()
        self._links = parse_urdf(self.robot.urdf, self.robot.urdf_path.name).links

    # ---------------------------------------------------------------- questions

    def all(self) -> list[Entity]:
        """Return the robot, its tip, the task's bodies, then the added ones."""
        robot, tip = self.robot.name, self.robot.tip_frame
        parts = [
            Entity(robot, "robot", f"robot, fixed at '{self.robot.base_frame}'", ("robot",)),
            Entity(tip, "robot", f"link of '{robot}', moved by its joints", ("link",)),
        ]
        bodies = [_of_body(body, "task") for body in self.task.bodies()]
        return [*parts, *bodies, *(_of_body(body, "spawned") for body, _ in self.added)]

    def find(self, name: str) -> Entity:
        """Return the entity of a name; Refusal names the nearest where there is none."""
        entities = {entity.name: entity for entity in self.all()}
        if name not in entities:
            raise Refusal(
                "RESULT_NOT_FOUND", f"no entity '{name}'", remedy=nearest(name, entities)
            )
        return entities[name]

    def select(self, filters: Filters) -> list[Entity]:
        """Return the entities that pass all filters.

        Raises:
            Refusal: the pattern is no regular expression, or too large a one.
        """
        options = re2.Options()
        options.log_errors = False
        try:
            pattern = re2.compile(filters.pattern, options)
        except re2.error as problem:
            why = b"".join(problem.args).decode(errors="replace")
            raise Refusal(FAILED, f"filter '{filters.pattern}': {why}") from problem
        return [e for e in self.all() if pattern.search(e.name) and self._passes(e, filters)]

    def state(self, name: str) -> tuple[Tensor, Tensor]:
        """Return pose (7,) and velocity (6,) of an entity, both along the world's axes.

        Raises:
            Refusal: no entity of that name.
        """
        entity, scene = self.find(name), self.sim.scene
        still = torch.zeros(6, dtype=torch.float64)
        if entity.body is not None:
            moving = scene.velocities.get(name)
            return scene.poses[name][0], still if moving is None else moving[0]
        if name == self.robot.name:
            return ORIGIN.clone(), still
        columns = scene.joint_columns(self.robot.arm_joints)
        position, rotation, jacobian = self.robot.chain.jacobian(scene.joint_position[:, columns])
        pose = torch.cat([position[0], rotations.matrix_to_quaternion(rotation)[0]])
        return pose, jacobian[0] @ scene.joint_velocity[0, columns]

    # ---------------------------------------------------------------- changes

    def set_state(
        self,
        name: str,
        pose: Tensor,
        velocity: Tensor,
        frame: str = "",
        acceleration: Tensor | None = None,
    ) -> None:
        """Put a body somewhere else, at once.

        Args:
            name: of the entity.
            pose: (7,), velocity: (6,), both in the frame as it stands now.
            frame: an entity, or the world where it is empty.
            acceleration: (6,), ignored where physics moves the body, and else refused.

        Raises:
            Refusal: unknown name or frame, unsound numbers, or an entity that cannot be put there.
        """
        entity = self.find(name)
        self._check_episode()
        pose, velocity = self._in_world(pose, frame), velocity.double()
        if not bool(torch.isfinite(velocity).all()):
            raise Refusal(FAILED, f"'{name}': a velocity is not finite")
        body = entity.body
        if body is None:
            raise Refusal(
                FAILED,
                f"'{name}' is fixed, or moved by joints",
                remedy="send the robot a trajectory",
            )
        if body.motion == "static":
            raise Refusal(FAILED, f"'{name}' is static: part of the world, it stays")
        is_pushed = acceleration is not None and bool(acceleration.any())
        if body.motion == "kinematic" and (is_pushed or bool(velocity.any())):
            raise Refusal(
                FAILED, f"'{name}' is not moved by physics", expected="no twist or acceleration"
            )
        turn = self._frame(frame)[3:].expand(2, 4)
        velocity = rotations.rotate(turn, velocity.view(2, 3)).flatten()
        self.sim.place_body(name, pose, velocity if body.motion == "dynamic" else None)

    def spawn(self, requests: Sequence[Spawn]) -> list[str | Refusal]:
        """Add primitives; return the name of each, or why it was refused.

        Raises:
            Refusal: nothing can be added now.
        """
        self._check_episode()
        added, answers = list(self.added), list[str | Refusal]()
        for request in requests:
            try:
                added.append(self._spawned(request, [body.name for body, _ in added]))
                answers.append(added[-1][0].name)
            except Refusal as refusal:
                answers.append(refusal)
        if len(added) > len(self.added):
            self._rebuild(added)
        return answers

    def delete(self, name: str) -> None:
        """Remove an entity that was spawned.

        Raises:
            Refusal: no entity of that name, or it belongs to the task.
        """
        self.find(name)
        rest = [(body, pose) for body, pose in self.added if body.name != name]
        if len(rest) == len(self.added):
            raise Refusal(
                FAILED, f"'{name}' belongs to task '{self.task.name}'", expected="a spawned entity"
            )
        self._check_episode()
        self._rebuild(rest)

    def delete_added(self, ends_episode: bool = False) -> None:
        """Remove all that was spawned.

        Args:
            ends_episode: whether the caller begins another one at once.

        Raises:
            Refusal: nothing can be removed now.
        """
        if self.added:
            if not ends_episode:
                self._check_episode()
            self._rebuild([])

    # ---------------------------------------------------------------- inside

    def _passes(self, entity: Entity, filters: Filters) -> bool:
        wanted, region = set(filters.tags), filters.region
        if filters.categories and entity.category not in filters.categories:
            return False
        if wanted and filters.needs_all_tags and not wanted.issubset(entity.tags):
            return False
        if wanted and wanted.isdisjoint(entity.tags):
            return False
        if region is None:
            return True
        pose = self.state(entity.name)[0].numpy()
        return entity.body is not None and region.overlaps(entity.body, pose)

    def _check_episode(self) -> None:
        if self.lock_step and self.sim.phase == "running":
            raise Refusal(
                "RESULT_INCORRECT_STATE",
                f"lock step, in episode {self.sim.episode}: its states are stamped once each",
                remedy="change the scene between episodes, or start with lock_step:=false",
            )

    def _frame(self, frame: str) -> Tensor:
        """Return the pose (7,) of a frame."""
        if frame in ("", WORLD, self.robot.base_frame):
            return ORIGIN
        return self.state(frame)[0]

    def _in_world(self, pose: Tensor, frame: str) -> Tensor:
        pose = pose.double()
        norm = float(torch.linalg.vector_norm(pose[3:]))
        if not bool(torch.isfinite(pose).all()) or abs(norm - 1.0) > 1e-3:
            raise Refusal(
                "INVALID_POSE", f"pose {pose.tolist()}", expected="finite, with a unit quaternion"
            )
        origin = self._frame(frame)
        position = origin[:3] + rotations.rotate(origin[3:], pose[:3])
        if float(position.abs().max()) > WORLD_HALF_EXTENT_M:
            raise Refusal(
                "INVALID_POSE",
                f"position {position.tolist()}",
                expected=f"at most {WORLD_HALF_EXTENT_M:g} m from the base along each axis",
            )
        return torch.cat([position, rotations.product(origin[3:], pose[3:] / norm)])

    def _spawned(self, request: Spawn, names: Sequence[str]) -> tuple[Body, Pose]:
        """Return the body of a request, and where it goes."""
        if not request.resource:
            raise Refusal("NO_RESOURCE", "both uri and resource_string are empty")
        if request.namespace not in ("", "/"):
            if not NAMESPACE.fullmatch(request.namespace):
                raise Refusal("NAMESPACE_INVALID", f"namespace '{request.namespace}'")
            raise Refusal(
                "RESULT_FEATURE_UNSUPPORTED",
                f"namespace '{request.namespace}'",
                expected="none: a primitive has no interfaces",
            )
        body = parse_primitive(request.resource)
        taken = {entity.name for entity in self.all()} | {WORLD, "robot", *self._links, *names}
        name = _free_name(request, body, taken)
        pose = self._in_world(request.pose, request.frame)
        x, y, z, i, j, k, w = pose.tolist()
        return named(body, name), (x, y, z, i, j, k, w)

    def _rebuild(self, added: Sequence[tuple[Body, Pose]]) -> None:
        """Go on in a simulator with other bodies; where none can be made, in one as it was."""
        old = self.sim.simulator
        task = WithBodies(self.task, added)
        old.close()
        simulator: TargetSimulator | None = None
        try:
            simulator = self._make(task)
            simulator.take_over(old, task.poses(1))
        except Exception as problem:  # engines raise what they like; the episode has to go on
            if simulator is not None:
                simulator.close()
            simulator = self._make(old.task)
            simulator.take_over(old, {})
            self.sim.go_on_with(simulator)
            raise Refusal(FAILED, f"{problem}; the scene is as it was") from problem
        self.added = tuple(added)
        self.sim.go_on_with(simulator)


def _of_body(body: Body, origin: str) -> Entity:
    category: Category = "object" if body.motion == "dynamic" else "static"
    tags = (body.shape, body.motion, origin, *(("visual",) if body.visual_only else ()))
    return Entity(body.name, category, described(body), tags, body)


def _free_name(request: Spawn, body: Body, taken: Collection[str]) -> str:
    """Return the name that a body asked for, or one made from it where that is allowed."""
    wanted = request.name or body.name
    if not wanted and not request.may_rename:
        raise Refusal("NAME_INVALID", "the name is empty, and allow_renaming is false")
    if wanted and not NAME.fullmatch(wanted):
        raise Refusal(
            "NAME_INVALID", f"name '{wanted}'", expected="a letter, then letters, digits or _"
        )
    if wanted and wanted not in taken:
        return wanted
    if not request.may_rename:
        raise Refusal("NAME_NOT_UNIQUE", f"name '{wanted}' is taken")
    stem = (wanted or body.shape)[:56]
    return next(name for i in range(len(taken) + 1) if (name := f"{stem}_{i}") not in taken)
