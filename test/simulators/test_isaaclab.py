"""Isaac Lab on Newton: the conformance suite, demonstrators, and what is refused.

One Isaac Lab simulation per process: the simulators of this module are made one after the other.
"""

import dataclasses
import os
import sys
import time
from pathlib import Path

import mujoco
import pytest
import torch

from grpo_ros.configuration import load_config
from grpo_ros.errors import (
    ConfigurationError,
    MissingExtraError,
    RobotError,
    SimulatorError,
)
from grpo_ros.randomness import Key, normal
from grpo_ros.robots.robot import load_robot
from grpo_ros.simulators.isaaclab import app
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.simulators.registry import make_simulator
from grpo_ros.tasks.base import Body, Randomisation
from grpo_ros.tasks.environment import EnvironmentConfig
from grpo_ros.tasks.pick_place import PickPlaceConfig
from grpo_ros.tasks.registry import make_task
from grpo_ros.tasks.with_bodies import WithBodies
from grpo_ros.training.placement import place_simulator

pytest.importorskip("isaaclab", reason="Isaac Lab is not installed: make isaaclab")

REACH = "isaaclab:reach_environment:ReachEnvCfg"
ENVIRONMENT = EnvironmentConfig(outcome="reached", chunk_size=2)
BUILD_TIMEOUT_S = 600
"""The first build on a machine compiles some hundred kernels."""
pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S)


def _task(name):
    return make_task(name, ENVIRONMENT if name.startswith("isaaclab:") else None)


@pytest.fixture
def built():
    """Make simulators that are closed at the end of a test."""
    opened = []

    def make(task, num_envs, config=None):
        task = _task(task) if isinstance(task, str) else task
        opened.append(make_simulator("isaaclab", task, num_envs, config))
        return opened[-1]

    yield make
    for simulator in opened:
        simulator.close()


@pytest.mark.parametrize("name", ["pick_place", "insert", "reach"])
def test_the_demonstrator_succeeds(built, name):
    assert _demonstrated(built(name, 32)) >= 0.95


def _demonstrated(simulator):
    """Return the demonstrator's success over all environments."""
    task, keys = simulator.task, [Key(5, 0, group) for group in range(simulator.num_envs)]
    simulator.reset(task.sample(keys), None, keys)
    for _ in range(task.horizon):
        action = task.demonstrate(simulator.scene(), simulator.controller_state())
        result = simulator.step(action.unsqueeze(1).float())
        if bool((result.terminated | result.truncated).all()):
            break
    return float(result.outcome.float().mean())


def test_both_engines_start_from_the_same_states_under_the_same_contract(built):
    simulator = built("insert", 4)
    other = MujocoSimulator(simulator.task, 4)
    keys = [Key(5, 0, group) for group in range(4)]
    assert simulator.contract == other.contract
    for each in (simulator, other):
        each.reset(each.task.sample(keys), None, keys)
    ours, theirs = simulator.observe(), other.observe()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-6, rtol=0.0)
    other.close()


def test_randomised_quantities_reach_the_solver_and_follow_a_restore(built):
    task = make_task("pick_place", PickPlaceConfig(randomisation=Randomisation(enabled=True)))
    simulator = built(task, 4)
    keys = [Key(5, 0, group) for group in range(4)]
    simulator.reset(task.sample(keys), None, keys)
    simulator.restore(simulator.snapshot([2]), [0, 0], [0, 3])
    simulator.step(torch.zeros(4, 1, 5))
    draws = simulator.rows.draws
    solver = simulator.physics._sim.physics_manager._solver
    cube = [
        name for name in range(solver.mj_model.nbody) if "cube" in solver.mj_model.body(name).name
    ]
    masses = torch.from_numpy(solver.mjw_model.body_mass.numpy())[:, cube[0]]
    torch.testing.assert_close(masses, 0.08 * draws[:, 0].float())
    friction = torch.from_numpy(solver.mjw_model.geom_friction.numpy())[:, :, 0]
    torch.testing.assert_close(friction, draws[:, 1:2].float().expand_as(friction))
    gains = torch.from_numpy(solver.mjw_model.actuator_gainprm.numpy())[:, 0, 0]
    torch.testing.assert_close(gains, 4000.0 * draws[:, 2].float())
    assert masses[0] == masses[2] == masses[3] != masses[1]


def test_an_environment_ends_with_its_outcome_and_rewards_what_it_rewards(built):
    simulator = built(REACH, 8)
    keys = [Key(1, 0, group) for group in range(8)]
    simulator.reset(simulator.task.sample(keys), None, keys)
    assert simulator.task.reward_names == ("outcome", "closeness")
    left_out = {f"event '{name}'" for name in ("weight", "gains", "push")}
    more = {"observation noise", "resets without event 'target'"}
    assert set(simulator.changed) == left_out | more
    total = torch.zeros(8)
    for _ in range(simulator.task.horizon // 2):
        result = simulator.step(torch.zeros(8, 2, 7))
        total += result.reward_terms[..., 1].sum(dim=1)
    assert bool((result.terminated | result.truncated).all())
    assert torch.equal(result.terminated, result.outcome)
    assert bool((total < 0.0).all())


def test_the_newton_renderer_gives_images_and_a_group_sees_the_same(built):
    task = make_task("pick_place", PickPlaceConfig(cameras=("overview",), image_size=(64, 48)))
    simulator = built(task, 4)
    assert simulator.capabilities.cameras == ("overview",)
    keys = [Key(1, 0, group) for group in range(4)]
    image = simulator.reset(task.sample(keys), None, keys)["overview_image"]
    assert image.shape == (4, 48, 64, 3) and image.dtype == torch.uint8
    colours = image[0].reshape(-1, 3).int()
    assert bool((colours[:, 0] - colours[:, 1] > 50).any()), "no red cube"
    assert bool((colours[:, 1] - colours[:, 0] > 50).any()), "no green goal"
    moved = simulator.step(torch.ones(4, 4, 5)).obs["overview_image"]
    assert not torch.equal(moved[0], image[0])
    group = simulator.restore(simulator.snapshot([1]), [0] * 4)["overview_image"]
    assert torch.equal(group, moved[1:2].expand_as(group))
    with pytest.raises(SimulatorError, match=r"no camera 'wrist'.*overview"):
        simulator.render(camera="wrist")


def test_a_renderer_that_is_missing_is_named(monkeypatch):
    from grpo_ros.simulators.isaaclab.scene import scene_config

    monkeypatch.setitem(sys.modules, "isaaclab_newton.renderers", None)
    task = make_task("reach")
    with pytest.raises(MissingExtraError, match=r"task\.cameras.*newton.*simulator:=mujoco"):
        scene_config(task.robot, task.bodies(), task.cameras(), 2, IsaacLabConfig())


def test_a_body_may_be_called_as_what_stands_in_every_scene(built):
    still = (0.4, 0.3, 0.02, 0.0, 0.0, 0.0, 1.0)
    named = [(Body(name, "box", (0.02,) * 3), still) for name in ("robot", "light")]
    simulator = built(WithBodies(make_task("pick_place"), named), 4)
    keys = [Key(1, 0, group) for group in range(4)]
    simulator.reset(simulator.task.sample(keys), None, keys)
    simulator.step(torch.zeros(4, 1, 5))
    scene = simulator.scene()
    assert {"robot", "light", "cube"} <= set(scene.poses)
    assert float((scene.position("robot") - torch.tensor(still[:3])).abs().max()) < 0.05


def test_a_robot_from_mjcf_grasps_as_the_one_from_its_urdf(built, tmp_path):
    robot = load_robot("franka_fr3")
    spec = mujoco.MjSpec.from_string(robot.urdf)
    spec.compile()
    path = tmp_path / "robot.xml"
    path.write_text(spec.to_xml())
    simulator = built("pick_place", 16, IsaacLabConfig(robot_asset=str(path)))
    assert _demonstrated(simulator) >= 0.9


@pytest.mark.parametrize(
    ("asset", "message"),
    [
        ("omniverse://server/robot.usd", "nothing is fetched"),
        ("missing.usd", "expected a file .usd"),
        ("robot.obj", "expected a file .usd"),
    ],
)
def test_a_wrong_asset_is_refused(asset, message):
    config = IsaacLabConfig(robot_asset=asset)
    with pytest.raises(RobotError, match=message):
        make_simulator("isaaclab", make_task("pick_place"), 4, config)


def test_an_environment_in_a_process_of_its_own_does_the_same(built, monkeypatch):
    folder = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
    names = ("task", "simulator", "task.outcome", "task.chunk_size", "placement")
    values = (REACH, "isaaclab", ENVIRONMENT.outcome, ENVIRONMENT.chunk_size, "separate")
    config = load_config([f"{name}={value}" for name, value in zip(names, values, strict=True)])
    keys = [Key(1, 0, group) for group in range(8)]
    chunks = normal("actions", keys, (4, 2, 7))

    def trajectory(simulator):
        simulator.reset(simulator.task.sample(keys), None, keys)
        simulator.restore(simulator.snapshot([2]), [0] * 8)
        results = [simulator.step(chunks[:, i]) for i in range(4)]
        return results, simulator.snapshot().row_hashes(), simulator.contract

    before = built("pick_place", 4)  # it must not matter what a process simulated before
    before.reset(before.task.sample(keys[:4]), None, keys[:4])
    before.step(torch.zeros(4, 1, 5))
    before.close()
    remote = place_simulator(config, _task(REACH), 8, None, print)
    try:
        expected, hashes, contract = trajectory(remote)
    finally:
        remote.close()
    results, own_hashes, own_contract = trajectory(built(REACH, 8))
    assert (hashes, contract) == (own_hashes, own_contract)
    for result, other in zip(results, expected, strict=True):
        assert torch.equal(result.reward_terms, other.reward_terms)
        assert torch.equal(result.obs["policy"], other.obs["policy"])


def test_what_a_first_step_brings_is_restored_in_a_simulator_that_never_stepped(built):
    task = _task("isaaclab:reach_environment:DelayedReachEnvCfg")
    keys = [Key(1, 0, group) for group in range(4)]
    chunks = normal("actions", keys, (4, 2, 7))
    first = built(task, 4)
    first.reset(task.sample(keys), None, keys)
    first.step(chunks[:, 0])
    middle = first.snapshot()
    assert any("delay_buffer" in name for name in middle.arrays)
    first.step(chunks[:, 1])
    expected = first.snapshot().row_hashes()
    first.close()
    second = built(task, 4)
    second.restore(middle, range(4))
    second.step(chunks[:, 1])
    assert second.snapshot().row_hashes() == expected

    before = second.snapshot().row_hashes()
    lacking = dict(middle.arrays)
    lacking.pop("episode/score")
    for snapshot, message in (
        (dataclasses.replace(middle, arrays=lacking), "do not both have episode/score"),
        (dataclasses.replace(middle, engine="another"), "snapshot of engine 'another'"),
        (middle.rows([0]), "snapshot rows .*expected 0 to 0"),
    ):
        with pytest.raises(SimulatorError, match=message):
            second.restore(snapshot, range(4))
    assert second.snapshot().row_hashes() == before


def test_what_would_be_fetched_is_refused_at_once():
    began = time.monotonic()
    task = make_task("isaaclab:reach_environment:RemoteReachEnvCfg", ENVIRONMENT)
    with pytest.raises(RobotError, match=r"ground.*is fetched from.*nothing is fetched"):
        make_simulator("isaaclab", task, 4)
    with pytest.raises(RobotError, match="is fetched from"):
        make_simulator("isaaclab", make_task("isaaclab:Isaac-Cartpole", ENVIRONMENT), 4)
    assert time.monotonic() - began < 40.0


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("isaaclab:Isaac-Cartpol", ENVIRONMENT, "did you mean 'Isaac-Cartpole"),
        ("isaaclab:no_such_module:Cfg", ENVIRONMENT, "importable module"),
        ("isaaclab:reach_environment:ReachCfg", ENVIRONMENT, "did you mean 'ReachEnvCfg'"),
        ("isaaclab:Isaac-Cartpole-Direct", ENVIRONMENT, "ManagerBasedRLEnv"),
    ],
)
def test_a_wrong_environment_is_named_with_the_nearest_match(name, config, message):
    with pytest.raises(ConfigurationError, match=message):
        make_simulator("isaaclab", make_task(name, config), 4)


def test_a_wrong_outcome_is_named_and_leaves_nothing_open(built):
    config = dataclasses.replace(ENVIRONMENT, outcome="reachd")
    with pytest.raises(ConfigurationError, match="did you mean 'reached'"):
        make_simulator("isaaclab", make_task(REACH, config), 4)
    built("pick_place", 4)


def test_a_task_without_an_outcome_is_refused():
    with pytest.raises(ConfigurationError, match=r"names no outcome.*task\.outcome"):
        make_task(REACH)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(SimulatorError, match=r"'cuda:0'.*no GPU.*device:=cpu"):
        make_simulator("isaaclab", make_task("pick_place"), 4, IsaacLabConfig(device="cuda:0"))


def test_a_simulator_that_cannot_be_made_does_not_hold_the_process(built):
    late = Randomisation(enabled=True, action_delay=(0, 9))
    with pytest.raises(SimulatorError, match="action_delay"):
        make_simulator("isaaclab", make_task("pick_place", PickPlaceConfig(randomisation=late)), 4)
    built("pick_place", 4)


@pytest.mark.skipif(app.has_module("isaacsim.simulation_app"), reason="Isaac Sim is there")
def test_the_kit_backend_says_what_it_needs():
    with pytest.raises(MissingExtraError, match="needs Isaac Sim"):
        make_simulator("isaaclab", make_task("pick_place"), 4, IsaacLabConfig(backend="kit"))


def test_a_missing_extra_gives_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="run `make isaaclab`"):
        make_simulator("isaaclab", make_task("pick_place"), 4)
