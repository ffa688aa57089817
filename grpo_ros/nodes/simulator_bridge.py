"""Simulator bridge, serving mode: one simulated robot behind a robot's ROS interfaces.

What driver and controllers of the real robot offer is offered under the same names and with the
same rules (docs/reference/ros_interfaces.md); beside that the poses of objects, a reset to
held-out initial states, and the verified outcome of each episode.

Publishes:
    /clock (rosgraph_msgs/Clock): simulated time; it never goes back, whatever is reset.
    tf, tf_static, robot_description (latched).
    ~/status (diagnostic_msgs/DiagnosticStatus, latched): the episode's phase.
    objects/<name>/pose (geometry_msgs/PoseStamped): objects and goal, in the base frame.
    ~/markers (visualization_msgs/MarkerArray, latched): the scene's primitives, and how the
        episode stands, at transform_rate_hz where somebody looks.
    Under the names that the robot's YAML gives, as far as it does:
    joint_states (sensor_msgs/JointState).
    <arm controller>/controller_state (control_msgs/JointTrajectoryControllerState).
    odom (nav_msgs/Odometry) and scan (sensor_msgs/LaserScan), of a base.
    Of each camera of the task, where somebody listens and something renders:
    <camera>/image_raw (sensor_msgs/Image): rgb8, the pixels of training's observations.
    <camera>/camera_info (sensor_msgs/CameraInfo): a pinhole in <camera>_optical_frame.
Subscribes, under the YAML's names; the last command wins:
    <arm controller>/joint_trajectory (trajectory_msgs/JointTrajectory).
    <forward controller>/commands (std_msgs/Float64MultiArray): positions, or velocities where
    arm_command is velocity_stream.
    joint_command (sensor_msgs/JointState): positions or velocities of named joints.
    cmd_vel (geometry_msgs/TwistStamped or Twist), of a base, instead of all these.
Actions:
    <arm controller>/follow_joint_trajectory (control_msgs/FollowJointTrajectory), free running.
    <gripper> (control_msgs/GripperCommand or ParallelGripperCommand).
Services:
    ~/reset (std_srvs/Trigger): begin the episode of the next initial state.
    ~/outcome (std_srvs/Trigger): success = the outcome was verified; message = JSON.
    Of simulation_interfaces, where that package is installed (simulated/simulation_services):
    get_simulator_features, get_entities, get_entity_state, get_entities_states, get_entity_info,
    get_entity_bounds, set_entity_state, get_spawnables, spawn_entity, spawn_entities,
    delete_entity, reset_simulation, get_simulation_state, set_simulation_state, step_simulation,
    and the action simulate_steps.
Parameters: `bridge_config.SimulatorBridgeConfig`.

Lock step: after a reset the state stamped t is published, and again now and then, until a
trajectory with that stamp comes. Its point after one control period is the target of exactly that
period, whatever velocities it has; of a base, a TwistStamped with that stamp is its velocity. Then
the next state is published. After an episode's end nothing is, until the next reset.

    ros2 run grpo_ros simulator_bridge --ros-args -p task:=pick_place
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy.clock
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from rclpy.clock import ClockType
from rclpy.node import Node
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from grpo_ros import configuration
from grpo_ros.deployment.simulation.entities import Entities
from grpo_ros.deployment.simulation.run_state import RunState
from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot, TargetSimulator
from grpo_ros.deployment.simulation.simulated_task import (
    camera_fields,
    make_simulated,
    run_config,
    task_of,
)
from grpo_ros.errors import SimulatorError
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.nodes.shared.lifecycle import guarded
from grpo_ros.nodes.shared.parameters import read_parameters
from grpo_ros.nodes.shared.process import leave, spinning
from grpo_ros.nodes.simulated.arm_actions import ArmActions
from grpo_ros.nodes.simulated.bridge_config import SimulatorBridgeConfig
from grpo_ros.nodes.simulated.gripper_actions import GripperActions
from grpo_ros.nodes.simulated.simulated_output import SimulatedOutput
from grpo_ros.nodes.simulated.streamed_commands import StreamedCommands
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.evaluation import held_out_keys

REPEAT_S = 0.1
"""Lock step: how often a state that nobody answered is published again."""
ANSWER_S = 0.3
"""How long the answers of what was ended have to be sent, before nothing is spun any more."""
MAX_SUBSTEPS = 50
"""Free running: physics steps per timer call at most; beyond that time is lost, not made up."""


class SimulatorBridge(Node):
    """See the module's docstring."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("simulator_bridge", **kwargs)
        self.failure, self._needs_images = "", False
        self.config = read_parameters(self, SimulatorBridgeConfig())
        self.sim = self._make_sim()
        self.task = self.sim.simulator.task
        self.run_state = RunState(self.config.lock_step)
        self._stop_process: Callable[[], None] | None = None
        self._make_interfaces()
        self._begin()

    def _make_sim(self) -> SimulatedRobot:
        """Return the simulated robot of the policy's run, or of the task's presets."""
        config, seed = self.config, self.config.seed
        if config.policy:
            folder = Path(config.policy).resolve().parent
            contract = load_policy_file(config.policy).contract
            self._needs_images = bool(camera_fields(contract))
            task, run = task_of(contract, folder), run_config(contract, folder)
        else:
            run = configuration.load_config([f"task={config.task}"])
            task = make_task(config.task, configuration.section(run, "task"))
        if config.simulator:
            run = dataclasses.replace(run, simulator=config.simulator)

        def make(task: Task) -> TargetSimulator:
            simulator = make_simulated(run, task, 1)
            if not isinstance(simulator, TargetSimulator):
                raise SimulatorError(
                    f"simulator '{run.simulator}' takes no joint targets of task '{task.name}'"
                )
            return simulator

        self._make_simulator = make
        return SimulatedRobot(
            make(task),
            lambda episode: held_out_keys(1, seed, first=episode)[0],
            config.first_episode,
            config.controllers,
        )

    def _make_interfaces(self) -> None:
        config, robot = self.config, self.task.robot
        self.output = SimulatedOutput(
            self,
            self.sim,
            config.joint_state_rate_hz,
            config.object_pose_rate_hz,
            config.transform_rate_hz,
            config.camera_rate_hz,
            self._needs_images,
        )
        self._status_out = self.create_publisher(DiagnosticStatus, "~/status", qos.LATCHED)
        self.streams = StreamedCommands(self, self.sim, config.lock_step)
        self.streams.listen(
            JointTrajectory, robot.interfaces.arm_trajectory_topic, self._on_trajectory
        )
        if config.lock_step and self.sim.base is not None:
            self.streams.listen(TwistStamped, robot.interfaces.cmd_vel, self._on_twist)
        self.create_service(Trigger, "~/reset", guarded(self, "~/reset", self._on_reset))
        self.create_service(Trigger, "~/outcome", guarded(self, "~/outcome", self._on_outcome))
        self.actions = ArmActions(self, self.sim, config.lock_step)
        self.goals = (self.actions, GripperActions(self, self.sim, config.lock_step))
        self.simulation_services = self._offer_simulation_interfaces()

    def _offer_simulation_interfaces(self) -> Any:
        """Return the services of simulation_interfaces; None where that package is not."""
        try:
            from grpo_ros.nodes.simulated.simulation_services import SimulationServices
        except ImportError as problem:
            self.get_logger().info(f"no simulation_interfaces ({problem}); offering ~/reset only")
            return None
        entities = Entities(self.sim, self._make_simulator, self.config.lock_step)
        return SimulationServices(self, entities, self.run_state)

    def _begin(self) -> None:
        """Start the clocks that drive the node."""
        self._waiting_ns: int | None = None
        self._waiting_since_s = 0.0
        self._has_answered = False
        self._ignored = 0
        wall = rclpy.clock.Clock(clock_type=ClockType.STEADY_TIME)
        if self.config.lock_step:
            on_timer, period_s = self._on_wait, REPEAT_S
        else:
            self._behind_s, self._last_s = 0.0, time.monotonic()
            period_s = max(self.sim.substep_ns / 1e9 / self.config.real_time_factor, 1e-3)
            on_timer = self._on_time
        self._timer = self.create_timer(period_s, guarded(self, "timer", on_timer), clock=wall)
        self._show()
        self.get_logger().info(
            f"task '{self.task.name}', robot '{self.task.robot.name}', "
            + ("lock step" if self.config.lock_step else f"{self.config.real_time_factor:g} x")
        )

    # ---------------------------------------------------------------- episodes

    def reset(self) -> int:
        """Begin the episode of the next initial state; return its number."""
        for goals in self.goals:
            goals.forget("the robot was reset")
        episode = self.sim.begin_next()
        self._has_answered, self._ignored = False, 0
        self._show()
        if self.config.lock_step:
            self._await_command()
        else:
            self.output.publish_all()
        return episode

    def step(self) -> None:
        """Free running: let one physics step pass, and publish what is due."""
        was = self.sim.phase
        self.sim.step_substep()
        self.output.publish_due()
        for goals in self.goals:
            goals.update()
        if self.sim.phase != was:
            self._show()

    def show_scene(self) -> None:
        """Publish the state that was set; in lock step nothing is between episodes."""
        if not self.config.lock_step:
            self.output.publish_all()

    def show_bodies(self) -> None:
        """Offer the topics of the bodies that there are now."""
        self.output.follow_bodies()
        self.output.publish_markers()

    def on_failure(self, where: str, reason: str) -> None:
        """End the episode: what a failed callback leaves behind is not a valid outcome."""
        if self.sim.phase == "running":
            self._fail(f"{where}: {reason}")

    def end_requests(self) -> None:
        """End what clients wait for; answers are sent by callbacks that follow."""
        for goals in self.goals:
            goals.forget("the simulator quits")
        if self.simulation_services is not None:
            self.simulation_services.stepper.stop("the simulator quits")

    def close(self) -> None:
        """Stop what drives the simulator, then the simulator."""
        self.destroy_timer(self._timer)
        self.streams.destroy()
        self.end_requests()
        self.sim.simulator.close()

    def quit(self) -> None:
        """End the process, once it waits for that."""
        if self._stop_process is not None:
            self._stop_process()

    def end_with(self, stop_process: Callable[[], None]) -> None:
        """Let `quit` end the process, even if it was called before."""
        self._stop_process = stop_process
        if self.run_state.now == "quitting":
            stop_process()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        episode = self.reset()
        response.success = True
        response.message = json.dumps({"episode": episode, "stamp_ns": self.sim.time_ns})
        return response

    def _on_outcome(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        result = self.sim.result
        if result is None:
            state = {"episode": self.sim.episode, "error": f"the episode is {self.sim.phase}"}
            response.message = json.dumps(state)
            return response
        response.success = result.success
        response.message = json.dumps(dataclasses.asdict(result))
        return response

    def _fail(self, error: str) -> None:
        self._waiting_ns = None
        self.sim.fail(error)
        self.get_logger().error(f"episode {self.sim.episode}: {error}")
        if self.config.lock_step:  # no step comes that would end them
            for goals in self.goals:
                goals.forget(error)
        self._show()

    def _show(self) -> None:
        values: dict[str, object] = {"episode": self.sim.episode}
        if self.sim.result is not None:
            values.update(dataclasses.asdict(self.sim.result))
        level = DiagnosticStatus.ERROR if self.sim.phase == "failed" else DiagnosticStatus.OK
        name = self.get_name()
        self._status_out.publish(messages.status(level, name, self.sim.phase, values))
        self.output.publish_markers()

    # ---------------------------------------------------------------- commands

    def _on_trajectory(self, message: JointTrajectory) -> None:
        if not self.config.lock_step:
            self.actions.command(message)
        elif self._is_awaited(messages.to_ns(message.header.stamp)):
            try:
                target = self.actions.first_target(message)
            except ValueError as problem:
                self._fail(f"arm command: {problem}")
            else:
                self._step(lambda: self.sim.step_period(target))

    def _on_twist(self, message: TwistStamped) -> None:
        """Lock step: drive a base for one control period."""
        if self._is_awaited(messages.to_ns(message.header.stamp)):
            speed, turn = message.twist.linear.x, message.twist.angular.z
            self._step(lambda: self.sim.step_twist(speed, turn))

    def _is_awaited(self, stamp_ns: int) -> bool:
        """Whether a command has the stamp that is waited for; else it is ignored, and counted."""
        if stamp_ns != self._waiting_ns:
            self._ignored += 1
        return stamp_ns == self._waiting_ns

    def _step(self, step: Callable[[], None]) -> None:
        """Lock step: one control period."""
        self._waiting_ns, self._has_answered = None, True
        step()
        for goals in self.goals:
            goals.update()
        if self.sim.phase == "running":
            self._await_command()
        else:
            self._show()

    def _await_command(self) -> None:
        self._waiting_ns, self._waiting_since_s = self.sim.time_ns, time.monotonic()
        self.output.publish_all()

    def _on_wait(self) -> None:
        """Lock step: publish again what nobody answered; give up after the deadline."""
        if self._waiting_ns is None:
            return
        waited_s = time.monotonic() - self._waiting_since_s
        if self._has_answered and waited_s > self.config.command_timeout_s:
            self._fail(
                f"no command stamped {self._waiting_ns} ns within "
                f"{self.config.command_timeout_s:g} s ({self._ignored} with other stamps)"
            )
        elif waited_s > REPEAT_S:
            self.output.publish_all()

    # ---------------------------------------------------------------- free running

    def _on_time(self) -> None:
        """Advance the simulated to the wall-clock time, unless it is paused."""
        now_s = time.monotonic()
        self._behind_s += (now_s - self._last_s) * self.config.real_time_factor
        self._last_s = now_s
        substep_s = self.sim.substep_ns / 1e9
        num = int(self._behind_s / substep_s)
        self._behind_s -= num * substep_s
        if self.run_state.is_playing:
            for _ in range(min(num, MAX_SUBSTEPS)):
                self.step()


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM, or until it is set to quit."""
    with spinning(SimulatorBridge, SimulatorBridge.close, args) as process:
        process.node.end_with(process.request_stop)
        exit_code = process.wait()
        process.call(process.node.end_requests)
        time.sleep(ANSWER_S)
        return exit_code


if __name__ == "__main__":
    leave(main())
