"""Simulated robot, matching, trials and the task of a policy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from deployment_fakes import ROBOT, make_contract

from grpo_ros.configuration import load_config
from grpo_ros.contract import Contract
from grpo_ros.deployment.matching import check_match, contract_differences
from grpo_ros.deployment.measurements import MeasurementWindow
from grpo_ros.deployment.records.trials import Trial, compared, summary, write_report
from grpo_ros.deployment.simulation.simulated_robot import WAIT_NS, SimulatedRobot
from grpo_ros.deployment.simulation.simulated_task import in_process_outcomes, run_config, task_of
from grpo_ros.deployment.simulation.trajectory_follower import Motion, Waypoints
from grpo_ros.errors import ContractError, GrpoRosError, SimulatorError
from grpo_ros.simulators.mujoco import renderer
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.evaluation import Evaluation, held_out_keys
from grpo_ros.training.run_terms import origin_of


@pytest.fixture(scope="module")
def robot() -> SimulatedRobot:
    task = PickPlace(PickPlaceConfig(horizon=3, motion="linear"))
    simulator = MujocoSimulator(task, 1, MujocoConfig(num_threads=1))
    return SimulatedRobot(simulator, lambda i: held_out_keys(1, first=i)[0], 5)


def test_episodes_follow_the_held_out_keys_and_time_never_goes_back(robot: SimulatedRobot) -> None:
    assert robot.phase == "idle"
    stamps = [robot.time_ns]
    for expected in (5, 6):
        assert robot.begin_next() == expected
        stamps.append(robot.time_ns)
        state = robot.simulator.task.sample(held_out_keys(1, first=expected))
        assert torch.equal(robot.scene.poses["cube"], state.poses["cube"])
        while robot.phase == "running":
            robot.step_period(robot.scene.joints(robot.arm_joints)[0].numpy())
            stamps.append(robot.time_ns)
        assert robot.result is not None
        assert (robot.result.episode, robot.result.steps) == (expected, 3)
        assert robot.result.key == tuple(held_out_keys(1, first=expected)[0])
    assert stamps == sorted(set(stamps))


def test_free_running_substeps_equal_a_period_of_lock_step(robot: SimulatedRobot) -> None:
    scenes = []
    for is_lock_step in (True, False):
        robot.next_episode = 9
        robot.begin_next()
        target = robot.scene.joints(robot.arm_joints)[0].numpy() + 0.02
        robot.command_gripper(0.0)
        if is_lock_step:
            robot.step_period(target)
        else:
            robot.arm.command(Waypoints(0, (robot.period_ns,), (Motion(target),)))
            for _ in range(robot.period_ns // robot.substep_ns):
                robot.step_substep()
        assert robot.num_steps == 1
        scenes.append(robot.scene)
    difference = scenes[0].joint_position - scenes[1].joint_position
    assert float(difference.abs().max()) < 1e-12


def test_free_running_an_episodes_time_begins_with_the_first_command(
    robot: SimulatedRobot,
) -> None:
    robot.begin_next()
    for _ in range(4 * robot.simulator.num_substeps):
        robot.step_substep()
    assert robot.num_steps == 0
    target = robot.measured().position
    robot.arm.command(Waypoints(0, (robot.period_ns,), (Motion(target),)))
    for _ in range(2 * robot.simulator.num_substeps):
        robot.step_substep()
    assert robot.num_steps == 2


def test_an_episode_without_a_command_ends_too(robot: SimulatedRobot) -> None:
    robot.begin_next()
    began_ns = robot.time_ns
    while robot.phase == "running":
        robot.step_substep()
    assert robot.num_steps == 3
    assert robot.time_ns - began_ns == WAIT_NS + 2 * robot.period_ns


def test_in_lock_step_too_the_controllers_state_compares_targets_with_measurements(
    robot: SimulatedRobot,
) -> None:
    robot.begin_next()
    target = robot.measured().position + 0.05
    robot.step_period(target)
    controller, measured = robot.arm.trajectories, robot.measured()
    assert controller.time_ns == robot.time_ns
    assert np.array_equal(controller.reference.position, target)
    assert np.array_equal(controller.feedback.position, measured.position)
    assert np.array_equal(controller.error, target - measured.position)
    assert np.abs(controller.error).max() > 0.001


def test_a_failed_episode_has_no_outcome(robot: SimulatedRobot) -> None:
    robot.begin_next()
    result = robot.fail("no command")
    assert (result.success, result.error, robot.phase) == (False, "no command", "failed")


def test_a_policy_matches_only_the_robot_it_was_trained_for() -> None:
    contract = make_contract()
    check_match(contract, ROBOT)
    limits = (dataclasses.replace(ROBOT.limits[0], velocity=9.0), *ROBOT.limits[1:])
    with pytest.raises(ContractError, match="velocity of joint 'fr3_joint1' is .*, not 9.0"):
        check_match(make_contract(limits=limits), ROBOT)
    with pytest.raises(ContractError, match="not 'ur5e'"):
        check_match(make_contract(embodiment="ur5e"), ROBOT)
    with pytest.raises(ContractError, match="SHA-256"):
        check_match(make_contract(robot_sha256="0" * 64), ROBOT)
    with pytest.raises(ContractError, match="joints are"):
        check_match(make_contract(limits=ROBOT.limits[::-1]), ROBOT)


def test_the_task_of_a_policy_has_the_policys_contract_or_is_refused() -> None:
    trained = PickPlace(PickPlaceConfig(horizon=17, chunk_size=8)).contract()
    assert contract_differences(task_of(trained).contract(), trained) == []
    other = dataclasses.replace(trained, workspace={"x": (0.0, 1.0)})
    with pytest.raises(ContractError, match="workspace is"):
        task_of(other)


def test_a_run_leaves_the_tasks_settings_beside_the_policy(tmp_path: Path) -> None:
    trained = PickPlace(PickPlaceConfig(step_m=0.02)).contract()
    with pytest.raises(ContractError, match="action is"):
        task_of(trained, tmp_path)
    (tmp_path / "config.yaml").write_text("task: pick_place\npick_place: {step_m: 0.02}\n")
    assert task_of(trained, tmp_path).contract() == trained


def test_a_copied_policy_is_judged_by_the_task_that_it_was_trained_on(tmp_path: Path) -> None:
    """A goal of 12 mm became one of 25 mm where no config.yaml lay beside the policy."""
    config = load_config(["task=pick_place", "difficulty=hard", "simulator=isaaclab"])
    hard = make_task("pick_place", config.pick_place).contract()
    contract = hard.with_provenance(**origin_of(config, 0))
    contract = Contract.from_json(contract.to_json())
    assert task_of(contract).config.goal_radius_m == config.pick_place.goal_radius_m == 0.012
    assert not task_of(contract).config.randomisation.enabled
    assert run_config(contract).simulator == "isaaclab"
    (tmp_path / "config.yaml").write_text("task: pick_place\n")  # of another run
    assert task_of(contract, tmp_path).config.goal_radius_m == 0.012
    assert task_of(hard).config.goal_radius_m == 0.025  # a contract that says nothing of it
    other = contract.with_provenance(task_settings={"goal_radius": 1.0})
    with pytest.raises(GrpoRosError, match="goal_radius"):
        task_of(other)


def observing(contract: Contract, *names: str) -> Contract:
    kept = tuple(field for field in contract.observation if field.name in names)
    return dataclasses.replace(contract, observation=kept)


def test_a_policy_may_observe_less_than_its_task_offers_but_nothing_else() -> None:
    task = PickPlace(PickPlaceConfig()).contract()
    seen = observing(task, "gripper_command", "command_error")
    assert contract_differences(task_of(seen).contract(), seen) == []
    gripper, error = seen.observation
    stranger = dataclasses.replace(gripper, name="grip_force")
    scaled = dataclasses.replace(error, scale=2.0, max_age_s=9.0)
    other = dataclasses.replace(seen, observation=(stranger, scaled))
    with pytest.raises(ContractError) as refused:
        task_of(other)
    for reason in (
        "observation 'grip_force' is not offered",
        "scale of observation 'command_error' is 1.0, not 2.0",
        "max_age_s of observation 'command_error' is 0.1, not 9.0",
    ):
        assert reason in str(refused.value)


def test_the_task_has_the_cameras_that_its_policy_sees() -> None:
    trained = PickPlace(PickPlaceConfig(cameras=("top",), image_size=(64, 48))).contract()
    seen = observing(trained, "top_image", "command_error")
    (camera,) = task_of(seen).cameras()
    assert (camera.name, camera.width, camera.height) == ("top", 64, 48)
    image = seen.field("top_image")
    source = dataclasses.replace(image.source, names=("front",))
    unknown = dataclasses.replace(image, name="front_image", source=source)
    with pytest.raises(ContractError, match="observation 'front_image' is not offered"):
        task_of(dataclasses.replace(seen, observation=(unknown,)))


class Recording:
    """A policy that does nothing, and keeps what it was given."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.given: list[dict[str, np.ndarray]] = []

    def infer(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        self.given.append(obs)
        return np.zeros((1, self.contract.chunk_size, self.contract.action_size), np.float32)


def test_without_ros_a_policy_is_given_what_it_observes_alone_and_nothing_is_drawn_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer, "rendering_problem", lambda: "no renderer")
    settings = "task: pick_place\npick_place: {horizon: 4, cameras: [overview]}\n"
    (tmp_path / "config.yaml").write_text(settings)
    task = PickPlace(PickPlaceConfig(horizon=4, cameras=("overview",))).contract()
    blind = Recording(observing(task, "gripper_command", "command_error"))
    result = in_process_outcomes(blind, held_out_keys(2), tmp_path)
    assert len(result.outcome) == 2 and len(blind.given) == 2
    assert all(list(obs) == ["gripper_command", "command_error"] for obs in blind.given)
    seeing = Recording(observing(task, "overview_image"))
    with pytest.raises(SimulatorError, match="no renderer"):
        in_process_outcomes(seeing, held_out_keys(2), tmp_path)


def test_a_report_counts_what_ran_and_compares_pairs(tmp_path: Path) -> None:
    keys = [tuple(key) for key in held_out_keys(4)]
    trials = [
        Trial(0, keys[0], True, 1.0, 20, True),
        Trial(1, keys[1], False, 0.5, 60, False),
        Trial(2, keys[2], True, 1.0, 30, True),
        Trial(3, keys[3], False, 0.0, 0, False, "no command"),
    ]
    report = summary(trials, 4)
    assert (report["successes"], report["episodes"], report["is_complete"]) == (2, 3, False)
    assert report["env_steps"] == 110 and 0.0 < report["wilson_95"][0] < 2 / 3
    expected = Evaluation(
        torch.tensor([True, True, True, True]),
        torch.tensor([1.0, 1.0, 1.0, 1.0]),
        torch.tensor([20, 40, 30, 30]),
    )
    pairs = compared(trials, expected)
    assert (pairs["equal_outcomes"], pairs["identical_episodes"]) == (2, 2)
    assert pairs["difference"] == pytest.approx(-1 / 3)
    first, second = write_report(tmp_path, report), write_report(tmp_path, report)
    assert first != second and first.parent == tmp_path / "deployments"
    assert json.loads(first.read_text())["trials"][2]["key"] == list(keys[2])


def test_latency_quantiles_are_nearest_ranks() -> None:
    window = MeasurementWindow(size=100)
    assert window.quantiles() == {}
    for i in range(200):
        window.add(i * 1e-3)
    quantiles = window.quantiles()
    assert (quantiles[0.5], quantiles[1.0]) == (0.150, 0.199)
    assert len(window) == 100
