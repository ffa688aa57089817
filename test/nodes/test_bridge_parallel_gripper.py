"""The simulated gripper as a parallel_gripper_controller offers it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")

from action_msgs.msg import GoalStatus  # noqa: E402
from bridge_in_process import bridge_in_process  # noqa: E402
from control_msgs.action import ParallelGripperCommand  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot  # noqa: E402
from grpo_ros.nodes.simulator_bridge import SimulatorBridge  # noqa: E402
from grpo_ros.robots.robot import ROBOTS_DIRECTORY, load_robot  # noqa: E402
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator  # noqa: E402
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig  # noqa: E402
from grpo_ros.training.evaluation import held_out_keys  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
NAMES = load_robot("franka_fr3").interfaces


class ParallelBridge(SimulatorBridge):
    """A bridge whose robot has a ParallelGripperCommand, as `robot` says."""

    robot: Path

    def _make_sim(self) -> SimulatedRobot:
        task = PickPlace(PickPlaceConfig(robot=str(self.robot)))
        self._make_simulator = lambda task: MujocoSimulator(task, 1, MujocoConfig(num_threads=1))
        return SimulatedRobot(
            self._make_simulator(task),
            lambda i: held_out_keys(1, first=i)[0],
            0,
            self.config.controllers,
        )


def test_a_parallel_gripper_command_stalls_with_success_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    source = ROBOTS_DIRECTORY / "franka_fr3"
    values = yaml.safe_load((source / "robot.yaml").read_text())
    values["interfaces"]["gripper_command"] = "parallel_gripper_command"
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "robot.urdf").write_bytes((source / "robot.urdf").read_bytes())
    ParallelBridge.robot = tmp_path
    settings = {"controllers.gripper_allow_stalling": True, "real_time_factor": 2.0}
    with bridge_in_process(ParallelBridge, **settings) as client:
        goal = ParallelGripperCommand.Goal(command=JointState(position=[0.0]))
        for position, is_reached in ((0.0, True), (0.5, False)):
            goal.command.position = [position]
            accepted, response = client.send_goal(
                ParallelGripperCommand, NAMES.gripper_action, goal
            )
            assert accepted and response.status == GoalStatus.STATUS_SUCCEEDED
            result = response.result
            assert (result.reached_goal, result.stalled) == (is_reached, not is_reached)
            assert len(result.state.position) == 1
        for positions in ([], [0.0, 0.0], [float("nan")]):
            goal.command.position = positions
            accepted, _ = client.send_goal(ParallelGripperCommand, NAMES.gripper_action, goal)
            assert not accepted
