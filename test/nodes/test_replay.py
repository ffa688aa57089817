"""Replay: a recorded bag gives the commands that were sent, from the messages alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from deploy_helpers import export_untrained  # noqa: E402
from rosbags.rosbag2 import Reader, StoragePlugin, Writer  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402

from grpo_ros import cli  # noqa: E402
from grpo_ros.controllers import make_controller  # noqa: E402
from grpo_ros.deployment.policy_runner import PolicyRunner  # noqa: E402
from grpo_ros.deployment.records.live_outcome import LiveOutcome  # noqa: E402
from grpo_ros.deployment.records.run_record import RunRecord  # noqa: E402
from grpo_ros.deployment.runner_config import RunnerConfig  # noqa: E402
from grpo_ros.deployment.safety.faults import FaultConfig  # noqa: E402
from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot  # noqa: E402
from grpo_ros.errors import ConfigurationError  # noqa: E402
from grpo_ros.export.policy_file import load_policy_file  # noqa: E402
from grpo_ros.nodes.inputs.observation_inputs import ObservationInputs  # noqa: E402
from grpo_ros.nodes.recording import black_box  # noqa: E402
from grpo_ros.nodes.recording.bag_writer import write_bag  # noqa: E402
from grpo_ros.nodes.recording.bags import Bag, BagError, Recorded  # noqa: E402
from grpo_ros.nodes.recording.black_box import BlackBox, provenance  # noqa: E402
from grpo_ros.nodes.recording.local_node import LocalNode  # noqa: E402
from grpo_ros.nodes.recording.replay import replay_bag  # noqa: E402
from grpo_ros.nodes.serving.command_output import make_output  # noqa: E402
from grpo_ros.nodes.serving.fault_inputs import FaultInputs  # noqa: E402
from grpo_ros.nodes.serving.policy_config import PolicyServerConfig, runner_settings  # noqa: E402
from grpo_ros.nodes.serving.run_control import RunControl  # noqa: E402
from grpo_ros.nodes.shared import messages  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator  # noqa: E402
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig  # noqa: E402
from grpo_ros.training.evaluation import held_out_keys  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
HORIZON = 12
MS = 1_000_000
PERIOD_NS = 50 * MS
ROBOT = load_robot("franka_fr3")
COMMANDS = f"/{ROBOT.interfaces.arm_trajectory_topic}"


class Cell(LocalNode):
    """A policy server without middleware: what it is given and what it sends stays in here."""

    def __init__(self, folder: Path, config: PolicyServerConfig) -> None:
        super().__init__()
        self.now_ns = 1_000_000_000_000
        self.sent: list[Any] = []
        self.interventions: list[tuple[str, str]] = []
        policy = load_policy_file(config.policy, ("cpu",))
        contract, robot = policy.contract, ROBOT
        self.black_box = self.box = box = BlackBox(
            self, 30.0, folder, provenance(config, contract)
        )
        self.runner = runner = PolicyRunner(
            contract,
            policy.infer,
            robot,
            make_controller(contract, robot),
            runner_settings(config),
        )
        output = make_output(
            self,
            robot,
            "trajectory_topic",
            lock_step=config.lock_step,
            period_s=runner.period_s,
            rate_hz=100.0,
            on_failure=pytest.fail,
            on_message=box.note,
        )
        path = Path(config.policy)
        record, outcome = RunRecord(path, contract, {}), LiveOutcome(contract, folder, ())
        self.control = control = RunControl(self, config, runner, output, record, outcome)
        control.after_run.append(lambda reason: box.event("stop", reason=reason))
        self.inputs = ObservationInputs(
            self,
            contract,
            robot,
            runner.buffer,
            config.inputs,
            control.on_input,
            config.lock_step,
            control.on_jump_back,
            box.note,
        )
        faults, changed = runner.config.faults, control.on_fault_input
        FaultInputs(self, robot, faults, runner.faults, changed, box.note)

    # what RunControl and BlackBox ask of a node

    def get_name(self) -> str:
        return "policy_server"

    def get_namespace(self) -> str:
        return "/"

    def get_logger(self) -> Any:
        return SimpleNamespace(info=print, warning=lambda *_, **__: None, error=pytest.fail)

    def get_clock(self) -> Any:
        now = SimpleNamespace(nanoseconds=self.now_ns)
        return SimpleNamespace(now=lambda: now, ros_time_is_active=True)

    def create_lifecycle_publisher(self, *_: Any) -> Any:
        return SimpleNamespace(publish=self.sent.append)

    def count_publishers(self, _: str) -> int:
        return 1

    def get_publishers_info_by_topic(self, _: str) -> list[Any]:
        return []

    def forget_inputs(self) -> None:
        self.inputs.forget()

    def show(self, *_: Any, **__: Any) -> None:
        pass

    def show_chunk(self, _: Any) -> None:
        pass

    def report(self, kind: str, reason: str) -> None:
        self.interventions.append((kind, reason))

    # what the test does

    def start(self) -> None:
        self.control.start()

    def observe(self, stamp_ns: int, position: Any, velocity: Any, poses: Any) -> None:
        """Give it a robot's state (8,) and the poses of bodies, at one stamp."""
        driver = ROBOT.driver_gripper
        names, position, velocity = driver.states_to_driver(
            list(ROBOT.joint_names), position, velocity
        )
        for name, values in poses.items():
            if name in self.runner.buffer.body_names:
                pose = messages.pose(stamp_ns, ROBOT.base_frame, values)
                self.deliver(f"/objects/{name}/pose", pose)
        joints = messages.joint_state(stamp_ns, names, position, velocity)
        self.deliver("/joint_states", joints)

    def dumped(self) -> Path:
        """Return the bag of all that was noted."""
        assert self.box.dump("velocity", "for a test")
        self.box.close()
        assert self.box.num_written == 1
        return max(self.box.folder.iterdir())


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_untrained(tmp_path_factory.mktemp("policy") / "policy.onnx", HORIZON)


@pytest.fixture
def make_cell(tmp_path: Path, policy: Path) -> Callable[..., Cell]:
    def make(**changes: Any) -> Cell:
        return Cell(tmp_path / "bags", PolicyServerConfig(policy=str(policy), **changes))

    return make


def run_lock_step(cell: Cell, num_episodes: int) -> None:
    """Run episodes of the simulated task, answer by answer."""
    task = PickPlace(PickPlaceConfig(horizon=HORIZON))
    simulator = MujocoSimulator(task, 1, MujocoConfig(num_threads=1))
    keys = held_out_keys(num_episodes)
    robot = SimulatedRobot(simulator, lambda i: keys[i], 0)
    for _ in keys:
        robot.begin_next()
        cell.start()
        while robot.phase == "running":
            scene = robot.scene
            poses = {name: pose[0].tolist() for name, pose in scene.poses.items()}
            position, velocity = (
                values[0].numpy() for values in (scene.joint_position, scene.joint_velocity)
            )
            before = len(cell.sent)
            cell.observe(robot.time_ns, position, velocity, poses)
            assert len(cell.sent) == before + 1
            robot.step_period(np.array(cell.sent[-1].points[0].positions))
        cell.control.halt("the episode has ended")
    simulator.close()


POSES = {
    "cube": (0.45, 0.1, 0.02, 0.0, 0.0, 0.0, 1.0),
    "goal": (0.55, 0.1, 0.02, 0.0, 0.0, 0.0, 1.0),
}


def run_free(cell: Cell, num_ticks: int, enabled_until: int = 1 << 30) -> None:
    """Inputs each 10 ms, a tick each 50 ms between them; the arm follows its last curve."""
    position, began_ns = ROBOT.home.numpy().copy(), cell.now_ns
    times, points = [0.0], position[None, :7]
    for number in range(5 * num_ticks):
        stamp_ns = began_ns + 10 * MS * (number + 1)
        cell.now_ns = stamp_ns
        if cell.sent:
            first_ns = messages.to_ns(cell.sent[-1].header.stamp)
            points, found = messages.trajectory_points(cell.sent[-1])
            times = [(first_ns + late - stamp_ns) * 1e-9 for late in found]
            position[:7] = [np.interp(0.0, times, column) for column in points.T]
        if cell.runner.config.faults.enable_topic:
            cell.deliver("/enable", Bool(data=number < 5 * enabled_until))
        cell.observe(stamp_ns, position, np.zeros(8), POSES)
        if number % 5 == 4:
            cell.now_ns = stamp_ns + 3 * MS
            cell.control.on_timer()


def test_a_lock_step_bag_replays_to_equal_commands(
    make_cell: Callable[..., Cell], policy: Path
) -> None:
    cell = make_cell(lock_step=True)
    run_lock_step(cell, 3)
    result = replay_bag(cell.dumped(), policy)
    assert (result.clock, result.is_whole, result.runs) == ("recorded", True, 3)
    assert result.ticks == result.commands == len(cell.sent) == 3 * HORIZON
    found = result.difference
    assert found is not None and found.largest == 0.0
    assert found.num_sent == found.num_compared == found.num_equal == 3 * HORIZON
    assert result.held == {} and result.interventions == () and result.inference_ms


def test_a_free_running_bag_with_interventions_and_a_fault_replays_the_same(
    make_cell: Callable[..., Cell], policy: Path
) -> None:
    cell = make_cell(
        runner=RunnerConfig(
            ramp_in_s=0.4,
            faults=FaultConfig(enable_topic="enable", enable_timeout_s=30.0),
        )
    )
    cell.deliver("/enable", Bool(data=True))
    cell.start()
    run_free(cell, 10, enabled_until=8)
    assert cell.interventions and cell.runner.phase == "stopped"
    result = replay_bag(cell.dumped(), policy)
    assert (result.clock, result.is_whole, result.runs) == ("recorded", True, 1)
    assert [(kind, why) for _, kind, why in result.interventions] == cell.interventions
    assert result.ended == ("the enable switch is released",) and result.held == {"enable": 1}
    found = result.difference
    assert found is not None and found.num_compared == found.num_sent == len(cell.sent)
    assert found.largest == 0.0


def test_a_run_that_begins_while_the_arm_still_brakes_replays_the_same(
    make_cell: Callable[..., Cell], policy: Path
) -> None:
    cell = make_cell()
    cell.start()
    run_free(cell, 6)
    cell.now_ns += 7 * MS
    cell.control.halt("stopped on request")
    cell.now_ns += 13 * MS
    cell.start()
    run_free(cell, 8)
    result = replay_bag(cell.dumped(), policy)
    assert result.runs == 2 and result.held["moving"] > 0
    assert result.commands == 6 + cell.runner.num_periods
    assert result.ended == ("in the recording: stopped on request",)
    found = result.difference
    assert found is not None and found.largest == 0.0
    assert found.num_compared == found.num_sent == len(cell.sent)


def test_a_clock_that_jumps_back_ends_the_run_in_a_replay_too(
    make_cell: Callable[..., Cell], policy: Path
) -> None:
    cell = make_cell()
    cell.start()
    run_free(cell, 6)
    cell.now_ns -= 60_000 * MS
    run_free(cell, 3)
    assert cell.runner.reason == "the clock jumped back"
    result = replay_bag(cell.dumped(), policy)
    assert result.ended == ("the clock jumped back",)
    assert result.difference is not None and result.difference.num_equal == len(cell.sent)


def test_another_setting_or_policy_shows_in_the_difference(
    make_cell: Callable[..., Cell], policy: Path, tmp_path: Path
) -> None:
    cell = make_cell()
    cell.start()
    run_free(cell, 8)
    path = cell.dumped()
    slower = replay_bag(path, policy, ["runner.speed=0.5"])
    assert slower.difference is not None and slower.difference.largest > 1e-3
    assert slower.difference.joint in ROBOT.arm_joints
    other = export_untrained(tmp_path / "other.onnx", HORIZON + 1)
    assert any("another policy" in note for note in replay_bag(path, other).notes)
    with pytest.raises(ConfigurationError, match=r"runner\.sped.*did you mean"):
        replay_bag(path, policy, ["runner.sped=0.5"])


def rewritten(source: Path, target: Path, keep: Callable[[Recorded], bool]) -> Path:
    """Write some of a bag's messages as another recorder would: without a word on the server."""
    with Bag(source) as bag:
        recorded = [item for item in bag.messages(bag.topics) if keep(item)]
    write_bag(target, recorded, {}, {})
    return target


def as_sqlite(source: Path, target: Path) -> Path:
    """Write a bag anew in the other storage that `ros2 bag record` knows."""
    with (
        Reader(source) as reader,
        Writer(target, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer,
    ):
        connections = {
            found.topic: writer.add_connection(
                found.topic, found.msgtype, msgdef=found.msgdef.data, rihs01=found.digest
            )
            for found in reader.connections
        }
        for connection, log_ns, data in reader.messages():
            writer.write(connections[connection.topic], log_ns, data)
    return target


def is_own(item: Recorded) -> bool:
    return item.topic.startswith("/policy_server/")


def test_a_bag_of_another_recorder_is_ticked_at_its_commands_or_at_the_control_rate(
    make_cell: Callable[..., Cell], policy: Path, tmp_path: Path
) -> None:
    cell = make_cell()
    cell.start()
    run_free(cell, 10)
    path = cell.dumped()
    with_commands = rewritten(path, tmp_path / "commands", lambda item: not is_own(item))
    result = replay_bag(with_commands, policy)
    assert (result.clock, result.is_whole) == ("commands", False)
    assert result.ticks == len(cell.sent) and result.difference is not None
    assert result.difference.num_compared == len(cell.sent)
    assert "chunks begin at measured positions" in result.notes[0]
    inputs = rewritten(
        path, tmp_path / "inputs", lambda item: not is_own(item) and item.topic != COMMANDS
    )
    first, second = (replay_bag(inputs, policy) for _ in range(2))
    assert (first.clock, first.difference) == ("rate", None)
    assert first.ticks == first.commands == 10  # 0.5 s of inputs at 20 Hz
    assert dataclasses.replace(first, inference_ms={}) == dataclasses.replace(
        second, inference_ms={}
    )
    locked = replay_bag(inputs, policy, ["lock_step=true"])
    assert locked.ticks == 50  # each stamp that all inputs share
    third = replay_bag(as_sqlite(inputs, tmp_path / "sqlite"), policy)
    assert dataclasses.replace(third, inference_ms={}) == dataclasses.replace(
        first, inference_ms={}
    )


def test_a_run_that_began_before_the_bag_is_replayed_as_a_dry_run(
    make_cell: Callable[..., Cell], policy: Path, tmp_path: Path
) -> None:
    cell = make_cell()
    cell.start()
    run_free(cell, 10)
    path = cell.dumped()
    with Bag(path) as bag:
        about = bag.about
        recorded = list(bag.messages(bag.topics))
    write_bag(tmp_path / "late", recorded[len(recorded) // 2 :], {}, about)
    result = replay_bag(tmp_path / "late", policy)
    assert (result.clock, result.is_whole, result.runs) == ("recorded", False, 1)
    assert 3 <= result.ticks <= 6 and "began before this bag" in result.notes[0]


def test_a_bag_that_lacks_what_the_policy_needs_is_refused_by_name(
    make_cell: Callable[..., Cell], policy: Path, tmp_path: Path
) -> None:
    cell = make_cell()
    cell.start()
    run_free(cell, 2)
    path = rewritten(
        cell.dumped(), tmp_path / "less", lambda item: item.topic != "/objects/cube/pose"
    )
    with pytest.raises(BagError, match=r"no '/objects/cube/pose' \(geometry_msgs/msg/PoseSt"):
        replay_bag(path, policy)
    with pytest.raises(BagError, match=f"'{COMMANDS}' is trajectory_msgs/msg/JointTrajectory, no"):
        replay_bag(path, policy, [f"inputs.joint_states_topic={COMMANDS}"])


def test_the_command_prints_a_summary_and_refuses_in_one_line(
    make_cell: Callable[..., Cell],
    policy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cell = make_cell(lock_step=True)
    run_lock_step(cell, 1)
    path, report = cell.dumped(), tmp_path / "replay.json"
    arguments = ["replay-bag", str(path), "--policy", str(policy)]
    assert cli.main([*arguments, "--output", str(report)]) == 0
    printed = capsys.readouterr().out
    assert f"1 runs, {HORIZON} ticks as they were recorded" in printed
    assert f"{HORIZON} compared at equal stamps: all equal" in printed
    assert json.loads(report.read_text())["difference"]["largest"] == 0.0
    file = path / f"{path.name}_0.mcap"
    file.write_bytes(file.read_bytes()[:-100])
    assert cli.main(arguments) == 2
    problem = capsys.readouterr().err
    assert "truncated or damaged" in problem and len(problem.splitlines()) == 1


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(black_box, "AFTER_S", 0.0)
