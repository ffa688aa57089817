"""A gripper whose driver counts otherwise: the simulated UR5e's counts as Robotiq's does."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from action_msgs.msg import GoalStatus  # noqa: E402
from bridge_in_process import bridge_in_process  # noqa: E402
from control_msgs.action import GripperCommand  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from grpo_ros.deployment.answers import GripperTarget  # noqa: E402
from grpo_ros.deployment.inputs.observation_buffer import ObservationBuffer  # noqa: E402
from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot  # noqa: E402
from grpo_ros.nodes.inputs.intake import Intake  # noqa: E402
from grpo_ros.nodes.inputs.sensor_inputs import SensorInputs  # noqa: E402
from grpo_ros.nodes.serving.gripper_commander import GripperCommander  # noqa: E402
from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.nodes.simulator_bridge import SimulatorBridge  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator  # noqa: E402
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig  # noqa: E402
from grpo_ros.training.evaluation import held_out_keys  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
KNUCKLE, CLOSED = "robotiq_85_left_knuckle_joint", 0.7929
ROBOT = load_robot("ur5e")


class Ur5eBridge(SimulatorBridge):
    """A bridge whose robot is a UR5e."""

    def _make_sim(self) -> SimulatedRobot:
        task = PickPlace(PickPlaceConfig(robot="ur5e"))
        self._make_simulator = lambda task: MujocoSimulator(task, 1, MujocoConfig(num_threads=1))
        return SimulatedRobot(
            self._make_simulator(task),
            lambda i: held_out_keys(1, first=i)[0],
            0,
            self.config.controllers,
        )


def test_goals_and_joint_states_are_those_of_the_gripper_and_the_server_turns_them_back() -> None:
    with bridge_in_process(Ur5eBridge, real_time_factor=2.0) as client:
        client.listen(JointState, "joint_states", qos.STATE)
        commander = GripperCommander(client.node, ROBOT, False, lambda _: None, lambda _: None)
        for target in (0.0, 0.0425):
            goal = commander._goal(GripperTarget(target, 60.0))
            assert goal.command.position == pytest.approx(CLOSED * (1.0 - target / 0.0425))
            accepted, response = client.send_goal(
                GripperCommand, ROBOT.interfaces.gripper_action, goal
            )
            assert accepted and response.status == GoalStatus.STATUS_SUCCEEDED
            assert response.result.position == pytest.approx(goal.command.position, abs=0.25)
            client.forget()
            message = client.wait_for("joint_states")
            assert KNUCKLE in message.name and "left_finger_joint" not in message.name
            buffer = ObservationBuffer(PickPlace(PickPlaceConfig(robot="ur5e")).contract(), ROBOT)
            SensorInputs(Intake(buffer, lambda: None), ROBOT, None).on_joint_state(message)
            assert buffer.position(["left_finger_joint"])[0] == pytest.approx(target, abs=0.01)
        commander.destroy()
