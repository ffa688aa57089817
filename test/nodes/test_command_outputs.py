"""Every way to command an arm drives the simulated one, and a stop brings it to rest."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from bridge_in_process import Bridge, bridge_in_process  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from fault_harness import STATUS, ServedPolicy, served  # noqa: E402
from fault_policies import export_orbit  # noqa: E402
from played_robot import until  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.nodes.simulator_bridge import SimulatorBridge  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
ROBOT = load_robot("franka_fr3")


def run_folder(folder: Path, arm_command: str) -> Path:
    """Return a run's policy, trained on a robot whose driver takes that command."""
    shutil.copytree(ROBOT.urdf_path.parent, folder / "robot")
    path = folder / "robot" / "robot.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["interfaces"]["arm_command"] = arm_command
    path.write_text(yaml.safe_dump(tree))
    config = {"task": "pick_place", "pick_place": {"robot": str(path.parent)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return export_orbit(folder / "policy.onnx", has_gripper=True)


@contextlib.contextmanager
def simulated(folder: Path, arm_command: str) -> Iterator[tuple[Bridge, ServedPolicy]]:
    """Run a free-running simulated robot, and a server that waits to be configured."""
    policy = run_folder(folder, arm_command)
    with bridge_in_process(SimulatorBridge, policy=str(policy)) as bridge:
        bridge.listen(DiagnosticStatus, STATUS, qos.LATCHED)
        bridge.listen(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        with served(bridge, folder, policy) as server:
            yield bridge, server


def drive(bridge: Bridge, server: ServedPolicy, **changes: str) -> None:
    """Run the policy; the arm moves within its limits, and a stop brings it to rest."""
    sim = bridge.bridge.sim
    robot = str(sim.robot.urdf_path.parent)
    server.activate(robot=robot, use_sim_time=True, **changes)
    time.sleep(0.3)
    before = bridge.look(lambda: sim.arm.target.copy())
    until(lambda: server.start().success, "what a run needs")

    def moved() -> float:
        return float(np.abs(bridge.look(lambda: sim.measured().position.copy()) - before).max())

    until(lambda: moved() > 0.15, "motion")
    assert server.says(DiagnosticStatus.OK, "running")
    summary = server.stop()
    assert summary["phase"] == "running" and summary["periods"] > 4
    until(lambda: stands(bridge), "rest")
    rest = bridge.look(lambda: sim.arm.target.copy())
    time.sleep(0.3)
    assert np.abs(bridge.look(lambda: sim.arm.target.copy()) - rest).max() < 1e-9
    lower, upper = (
        np.array([getattr(x, k) for x in ROBOT.limits[:7]]) for k in ("lower", "upper")
    )
    assert (lower <= rest).all() and (rest <= upper).all()


def stands(bridge: Bridge) -> bool:
    """Whether the arm's targets stay where they are for 0.1 s, and so does the arm."""
    sim = bridge.bridge.sim
    before = bridge.look(lambda: sim.arm.target.copy())
    time.sleep(0.1)
    speed = bridge.look(lambda: float(np.abs(sim.measured().velocity).max()))
    return speed < 0.02 and np.array_equal(bridge.look(lambda: sim.arm.target.copy()), before)


def test_trajectories_goals_and_position_streams_drive_the_simulated_arm(tmp_path: Path) -> None:
    """D9: each interface of a driver that takes positions."""
    with simulated(tmp_path, "trajectory_topic") as (bridge, server):
        for kind in ("trajectory_topic", "trajectory_action", "position_stream"):
            drive(bridge, server, command=kind)


def test_joint_commands_drive_the_simulated_arm_and_its_gripper_without_an_action(
    tmp_path: Path,
) -> None:
    """D9: what Isaac Sim's articulation controller takes; the gripper is one of its joints."""
    with simulated(tmp_path, "joint_command") as (bridge, server):
        bridge.listen(JointState, "joint_command", qos.STATE)
        bridge.look(lambda: bridge.bridge.sim.command_gripper(0.01))
        drive(bridge, server)
        sent = bridge.heard("joint_command")[-1]
        gripper = ROBOT.gripper
        assert gripper is not None
        assert list(sent.name) == [*ROBOT.arm_joints, gripper.joint]
        assert sent.position[-1] == gripper.open_position_m
        assert bridge.look(lambda: bridge.bridge.sim.gripper_position) > 0.035


def test_a_velocity_stream_drives_the_simulated_arm(tmp_path: Path) -> None:
    """D9: a driver that takes velocities."""
    with simulated(tmp_path, "velocity_stream") as (bridge, server):
        drive(bridge, server)
