"""Entities of a running simulation: found by every filter, moved, spawned and deleted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from grpo_ros import rotations
from grpo_ros.deployment.simulation.entities import Entities, Filters, Spawn
from grpo_ros.deployment.simulation.primitives import SPAWNABLES, half_extents, parse_primitive
from grpo_ros.deployment.simulation.refusal import Refusal
from grpo_ros.deployment.simulation.regions import Box, Sphere
from grpo_ros.deployment.simulation.run_state import STATES, RunState
from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot
from grpo_ros.deployment.simulation.trajectory_follower import Motion, Waypoints
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.tasks.base import Body, Task
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig
from grpo_ros.training.evaluation import held_out_keys

STILL = torch.zeros(6, dtype=torch.float64)
BOX = "primitive://box?size=0.04,0.06,0.08&mass=0.3"
UPRIGHT = [0.0, 0.0, 0.0, 1.0]


def make(task: Task) -> MujocoSimulator:
    return MujocoSimulator(task, 1, MujocoConfig(num_threads=0))


@pytest.fixture
def entities() -> Iterator[Entities]:
    task = PickPlace(PickPlaceConfig(horizon=200))
    sim = SimulatedRobot(make(task), lambda i: held_out_keys(1, first=i)[0], 0)
    sim.begin_next()
    yield Entities(sim, make, lock_step=False)
    sim.simulator.close()


def pose(x: float, y: float, z: float, turn: list[float] = UPRIGHT) -> torch.Tensor:
    return torch.tensor([x, y, z, *turn], dtype=torch.float64)


def code_of(excinfo: pytest.ExceptionInfo[Refusal]) -> str:
    return excinfo.value.code


# ------------------------------------------------------------------ primitives


def test_every_spawnable_is_a_primitive_and_options_reach_the_body() -> None:
    for shape, uri in SPAWNABLES.items():
        assert parse_primitive(uri).shape == shape
    body = parse_primitive(
        "primitive://cylinder?radius=0.02&height=0.1&mass=0.5&friction=0.4"
        "&motion=kinematic&colour=0.1,0.2,0.3&name=post"
    )
    assert body == Body(
        "post",
        "cylinder",
        (0.02, 0.05),
        mass=0.5,
        friction=0.4,
        motion="kinematic",
        colour=(0.1, 0.2, 0.3, 1.0),
    )
    assert half_extents(body) == (0.02, 0.02, 0.05)
    assert parse_primitive("primitive://box?size=0.04,0.06,0.08").size == (0.02, 0.03, 0.04)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("file:///cube.sdf", "UNSUPPORTED_FORMAT", "primitive://SHAPE"),
        ("<sdf/>", "UNSUPPORTED_FORMAT", "primitive://SHAPE"),
        ("primitive://bax?size=1,1,1", "RESOURCE_PARSE_ERROR", "did you mean 'box'"),
        ("primitive://box", "RESOURCE_PARSE_ERROR", "no 'size'"),
        ("primitive://box?size=1,1", "RESOURCE_PARSE_ERROR", "size = '1,1'"),
        ("primitive://box?size=1,1,nan", "RESOURCE_PARSE_ERROR", "3 numbers"),
        ("primitive://box?size=1,1,-1", "RESOURCE_PARSE_ERROR", "above 0"),
        ("primitive://sphere?radius=11", "RESOURCE_PARSE_ERROR", "at most 10"),
        ("primitive://sphere?radius=1&mas=2", "RESOURCE_PARSE_ERROR", "did you mean 'mass'"),
        ("primitive://sphere?radius=1&mass=0", "RESOURCE_PARSE_ERROR", "mass"),
        ("primitive://sphere?radius=1&radius=2", "RESOURCE_PARSE_ERROR", "twice"),
        ("primitive://sphere?radius=1&motion=static", "RESOURCE_PARSE_ERROR", "kinematic"),
        ("primitive://sphere?radius=1&colour=1,1,2", "RESOURCE_PARSE_ERROR", "colour"),
    ],
)
def test_a_resource_that_is_not_usable_is_refused_by_name(
    text: str, code: str, message: str
) -> None:
    with pytest.raises(Refusal, match=message) as excinfo:
        parse_primitive(text)
    assert code_of(excinfo) == code


# ------------------------------------------------------------------ regions


def test_regions_overlap_bodies_by_their_shape() -> None:
    eighth = [0.0, 0.0, np.sin(np.pi / 8), np.cos(np.pi / 8)]  # 45 degrees about z
    cube, rod = Body("c", "box", (0.1,) * 3), Body("r", "cylinder", (0.1, 0.5))
    ball = Body("b", "sphere", (0.1,))
    straight, turned = pose(1, 0, 0).numpy(), pose(1, 0, 0, eighth).numpy()
    corner = Sphere(np.array([0.87, 0.0, 0.0]), 0.01)
    assert corner.overlaps(cube, turned) and not corner.overlaps(cube, straight)
    beside = Sphere(np.array([1.09, 0.09, 0.0]), 0.01)
    assert beside.overlaps(cube, straight)
    assert not beside.overlaps(rod, straight) and not beside.overlaps(ball, straight)
    assert Sphere(np.array([1.0, 0.0, 0.55]), 0.06).overlaps(rod, straight)
    box = Box(np.array([1.08, 0.08, -1.0]), np.array([2.0, 1.0, 1.0]))
    assert box.overlaps(cube, straight) and not box.overlaps(cube, turned)
    assert not box.overlaps(ball, straight)
    assert Box(np.full(3, -5.0), np.full(3, 5.0)).overlaps(rod, turned)


# ------------------------------------------------------------------ filters


def test_filters_apply_together(entities: Entities) -> None:
    def names(**filters: object) -> list[str]:
        return [entity.name for entity in entities.select(Filters(**filters))]

    robot, tip = entities.robot.name, entities.robot.tip_frame
    assert names() == [robot, tip, "table", "cube", "goal"]
    assert names(pattern="^(cube|goal)$") == ["cube", "goal"]
    assert names(pattern="[[:alpha:]]*b") == ["table", "cube"]
    assert names(categories=("robot",)) == [robot, tip]
    assert names(categories=("static", "object"), pattern="o") == ["goal"]
    assert names(categories=("human",)) == []
    assert names(tags=("cylinder", "dynamic")) == ["cube", "goal"]
    assert names(tags=("cylinder", "visual"), needs_all_tags=True) == ["goal"]
    where = entities.state("cube")[0][:3].numpy()
    assert names(region=Sphere(where + [0, 0, 0.05], 0.04)) == ["cube"]
    assert names(region=Sphere(where, 0.04)) == ["table", "cube"]
    with pytest.raises(Refusal, match=r"filter '\('"):
        names(pattern="(")
    with pytest.raises(Refusal, match="filter '.*': invalid repetition size"):
        names(pattern="(a{500}){500}")
    entities.spawn([Spawn(BOX, name="a" * 64)])
    assert names(pattern="(a|aa)+!") == [], "in a time that a name's length bounds"


def test_what_is_not_there_is_named_with_its_nearest(entities: Entities) -> None:
    for ask in (entities.find, entities.state, entities.delete):
        with pytest.raises(Refusal, match="no entity 'cub'; did you mean 'cube'") as excinfo:
            ask("cub")
        assert code_of(excinfo) == "RESULT_NOT_FOUND"


# ------------------------------------------------------------------ states


def test_the_tip_has_the_velocity_of_its_pose(entities: Entities) -> None:
    sim = entities.sim
    target = sim.scene.joints(sim.arm_joints)[0].numpy()
    sim.arm.command(Waypoints(0, (200_000_000,), (Motion(target + 0.1),)))
    for _ in range(10):
        sim.step_substep()
    tip = entities.robot.tip_frame
    (before, first), _ = entities.state(tip), sim.step_substep()
    after, second = entities.state(tip)
    moved = (after[:3] - before[:3]) / (sim.substep_ns / 1e9)
    assert torch.allclose(moved, 0.5 * (first + second)[:3], atol=5e-3)
    assert moved.norm() > 0.05
    assert torch.equal(entities.state(entities.robot.name)[0], pose(0, 0, 0))


def test_a_body_is_put_where_it_is_asked_for_in_any_frame(entities: Entities) -> None:
    velocity = torch.tensor([0.1, 0.2, 0.3, 1.0, 2.0, 3.0], dtype=torch.float64)
    quarter = [0.0, 0.0, 2**-0.5, 2**-0.5]
    entities.set_state("goal", pose(0.5, 0.1, 0.2, quarter), STILL)
    entities.set_state("cube", pose(0.1, 0.0, 0.3), velocity, "goal")
    found, moving = entities.state("cube")
    assert torch.allclose(found, pose(0.5, 0.2, 0.5, quarter), atol=1e-12)
    expected = torch.tensor([-0.2, 0.1, 0.3, -2.0, 1.0, 3.0], dtype=torch.float64)
    assert torch.allclose(moving, expected, atol=1e-12)
    for frame in ("", "world", entities.robot.base_frame):
        entities.set_state("cube", pose(0.4, 0.0, 0.3), STILL, frame)
        assert torch.allclose(entities.state("cube")[0], pose(0.4, 0.0, 0.3))


def test_a_state_that_is_not_sound_is_refused_and_changes_nothing(entities: Entities) -> None:
    before = entities.state("cube")[0]
    moving = STILL + 1.0
    tip = entities.robot.tip_frame
    cases = [
        ("cube", pose(0, 0, 0, [0.0] * 4), STILL, "", "INVALID_POSE"),
        ("cube", pose(float("nan"), 0, 0), STILL, "", "INVALID_POSE"),
        ("cube", pose(0, 0, 101.0), STILL, "", "INVALID_POSE"),
        ("cube", pose(0, 0, 0), STILL, "gaol", "RESULT_NOT_FOUND"),
        ("cube", pose(0, 0, 0), STILL / 0.0, "", "RESULT_OPERATION_FAILED"),
        ("goal", pose(0, 0, 0), moving, "", "RESULT_OPERATION_FAILED"),
        ("table", pose(0, 0, 1), STILL, "", "RESULT_OPERATION_FAILED"),
        (tip, pose(0, 0, 1), STILL, "", "RESULT_OPERATION_FAILED"),
        (entities.robot.name, pose(0, 0, 1), STILL, "", "RESULT_OPERATION_FAILED"),
    ]
    for name, where, velocity, frame, code in cases:
        with pytest.raises(Refusal) as excinfo:
            entities.set_state(name, where, velocity, frame)
        assert code_of(excinfo) == code, (name, str(excinfo.value))
        assert (name if frame == "" and code.startswith("RESULT") else "") in str(excinfo.value)
    assert torch.equal(entities.state("cube")[0], before)
    with pytest.raises(Refusal, match="no twist or acceleration"):
        entities.set_state("goal", pose(0, 0, 0), STILL, "", moving)
    entities.set_state("cube", pose(0.5, 0, 0.2), STILL, "", moving)  # ignored


# ------------------------------------------------------------------ spawning


def test_a_spawned_body_joins_a_running_episode_without_a_jump(entities: Entities) -> None:
    sim = entities.sim
    hold = Motion(sim.measured().position)  # an episode's time begins with the first command
    sim.arm.command(Waypoints(0, (sim.period_ns,), (hold,)))
    sim.command_gripper(0.01)
    for _ in range(23):
        sim.step_substep()
    before, steps = sim.scene, sim.num_steps
    target = sim.simulator.controller_state()["target"]
    asked = Spawn(BOX, "brick", pose=pose(0.1, 0.0, 0.3), frame="goal")
    assert entities.spawn([asked]) == ["brick"]
    after = sim.scene
    assert (after.joint_position - before.joint_position).abs().max() < 1e-9
    assert (after.joint_velocity - before.joint_velocity).abs().max() < 1e-9
    assert torch.equal(after.poses["cube"], before.poses["cube"])
    assert torch.equal(sim.simulator.controller_state()["target"], target)
    goal = entities.state("goal")[0]
    origin = goal[:3] + rotations.rotate(goal[3:], pose(0.1, 0, 0.3)[:3])
    assert torch.allclose(entities.state("brick")[0][:3], origin)
    for _ in range(50):
        sim.step_substep()
    assert sim.num_steps == steps + 10 and sim.phase == "running"
    assert (sim.scene.joints(sim.arm_joints) - target[:, :7]).abs().max() < 0.01
    assert entities.state("brick")[0][2] < 0.2  # it fell
    assert "spawned" in entities.find("brick").tags
    entities.delete("brick")
    with pytest.raises(Refusal, match="no entity 'brick'"):
        entities.find("brick")
    assert "brick" not in sim.scene.poses and sim.num_steps == steps + 10


def test_a_spawned_body_is_there_in_the_next_episode_until_all_are_deleted(
    entities: Entities,
) -> None:
    entities.spawn([Spawn(BOX, "brick", pose=pose(0.3, 0.4, 0.3))])
    for _ in range(30):
        entities.sim.step_substep()
    entities.sim.begin_next()
    assert torch.equal(entities.state("brick")[0], pose(0.3, 0.4, 0.3))
    entities.delete_added()
    entities.sim.begin_next()
    assert [entity.name for entity in entities.all()][-1] == "goal"


def test_names_are_unique_and_valid_or_generated(entities: Entities) -> None:
    ball = "primitive://sphere?radius=0.02"
    asked = [
        Spawn(ball, "ball", pose=pose(0.2, 0.4, 0.1)),
        Spawn(ball, "ball", pose=pose(0.3, 0.4, 0.1)),
        Spawn(ball, "ball", may_rename=True, pose=pose(0.4, 0.4, 0.1)),
        Spawn(ball, may_rename=True, pose=pose(0.5, 0.4, 0.1)),
        Spawn(ball + "&name=own", pose=pose(0.6, 0.4, 0.1)),
        Spawn(ball, "cube"),
        Spawn(ball, "fr3_link1"),
        Spawn(ball, "no good"),
        Spawn(ball),
        Spawn("", "nothing"),
        Spawn(ball, "x", namespace="a//b"),
        Spawn(ball, "x", namespace="a/b"),
        Spawn(ball, "x", pose=pose(0, 0, 0, [0.0, 0.0, 0.0, 0.0])),
        Spawn(ball, "x", frame="nowhere"),
    ]
    answers = entities.spawn(asked)
    found = [answer.code if isinstance(answer, Refusal) else answer for answer in answers]
    assert found == [
        "ball",
        "NAME_NOT_UNIQUE",
        "ball_0",
        "sphere_0",
        "own",
        "NAME_NOT_UNIQUE",
        "NAME_NOT_UNIQUE",
        "NAME_INVALID",
        "NAME_INVALID",
        "NO_RESOURCE",
        "NAMESPACE_INVALID",
        "RESULT_FEATURE_UNSUPPORTED",
        "INVALID_POSE",
        "RESULT_NOT_FOUND",
    ]
    with pytest.raises(Refusal, match="'cube' belongs to task 'pick_place'"):
        entities.delete("cube")


def test_where_no_other_simulator_can_be_made_the_scene_goes_on(entities: Entities) -> None:
    sim = entities.sim
    for _ in range(7):
        sim.step_substep()
    before, works = sim.scene, entities._make

    def fails(task: Task) -> MujocoSimulator:
        if any(body.name == "brick" for body in task.bodies()):
            raise RuntimeError("no memory")
        return works(task)

    entities._make = fails
    with pytest.raises(Refusal, match="no memory; the scene is as it was"):
        entities.spawn([Spawn(BOX, "brick")])
    assert torch.equal(sim.scene.joint_position, before.joint_position)
    assert "brick" not in [entity.name for entity in entities.all()]
    sim.step_substep()
    assert sim.phase == "running"


def test_in_lock_step_the_scene_changes_between_episodes_only(entities: Entities) -> None:
    entities.lock_step = True
    changes = (
        lambda: entities.spawn([Spawn(BOX, "brick")]),
        lambda: entities.set_state("cube", pose(0.5, 0, 0.1), STILL),
    )
    for change in changes:
        with pytest.raises(Refusal, match="lock step, in episode 0") as excinfo:
            change()
        assert code_of(excinfo) == "RESULT_INCORRECT_STATE"
    entities.sim.fail("over")
    for change in changes:
        change()
    entities.sim.begin_next()
    with pytest.raises(Refusal, match="lock step"):
        entities.delete_added()
    entities.delete_added(ends_episode=True)
    assert entities.added == ()


# ------------------------------------------------------------------ run state


def test_states_follow_each_other_as_the_standard_says() -> None:
    for start in STATES[:3]:
        for target in STATES:
            state = RunState(lock_step=False)
            state.now = start
            if start == target:
                with pytest.raises(Refusal) as excinfo:
                    state.check(target)
                assert code_of(excinfo) == "ALREADY_IN_TARGET_STATE"
            else:
                state.check(target)
        with pytest.raises(Refusal) as excinfo:
            state.check("loading a world")
        assert code_of(excinfo) == "INCORRECT_TRANSITION"


def test_steps_are_taken_while_paused_only_and_never_in_lock_step() -> None:
    state = RunState(lock_step=False)
    with pytest.raises(Refusal, match="'playing'; expected 'paused'") as excinfo:
        state.check_stepping()
    assert code_of(excinfo) == "RESULT_OPERATION_FAILED"
    state.now = "paused"
    state.check_stepping()
    locked = RunState(lock_step=True)
    with pytest.raises(Refusal, match="lock step"):
        locked.check_stepping()
    with pytest.raises(Refusal, match="'paused' in lock step") as excinfo:
        locked.check("paused")
    assert code_of(excinfo) == "STATE_TRANSITION_ERROR"
    locked.check("quitting")
