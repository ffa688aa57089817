"""navigate_to_pose: any Nav2 client can send a policy of a base to a goal."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav2_msgs.action import NavigateToPose
from rclpy.action import CancelResponse, GoalResponse
from rclpy.clock import Clock, ClockType

from grpo_ros.deployment.inputs.observation_buffer import UNIT_TOLERANCE, NotReady
from grpo_ros.errors import GrpoRosError
from grpo_ros.nodes.inputs.observation_inputs import ObservationInputs
from grpo_ros.nodes.serving.run_control import RunControl
from grpo_ros.nodes.shared import messages
from grpo_ros.nodes.shared.action_goals import ActiveGoal, GoalStatus, run, serve

ACTION = "navigate_to_pose"
RESULT_S = 0.1
"""How long the executor is given to send the last goal's result, before or after it returns."""
FEEDBACK_PERIODS = 5
BEGIN_S = 5.0
"""A goal whose run has seen no full observation by then, its own pose included, is given up."""


class NavigateServer:
    """Offers nav2_msgs/NavigateToPose: the goal's pose becomes that of the observed goal body.

    One goal at a time: while the policy runs another is refused. A goal is reached within
    `goal_radius_m`; its heading is not regarded, as policies that go to a place do not.

    Args:
        node: that offers the action.
        control: whose runs carry goals out.
        inputs: take the goal's pose, whatever frame it is in.
        start_problem: says what keeps a run from beginning.
    """

    def __init__(
        self,
        node: Any,
        control: RunControl,
        inputs: ObservationInputs,
        start_problem: Callable[[], str],
    ) -> None:
        self._node, self._control, self._inputs = node, control, inputs
        self._start_problem = start_problem
        self.body = control.config.goal_body
        topic = control.config.inputs.object_topic.format(name=self.body)
        self.goal_topic = str(node.resolve_topic_name(topic))
        self._pose: PoseStamped | None = None
        self._goal = ActiveGoal()
        self._began_ns = self._num_ticks = 0
        self._began_s = 0.0
        self._ended_s = -math.inf
        self._server = serve(
            node, NavigateToPose, ACTION, run, self._cancel, self._judge, self._accept
        )
        control.before_tick.append(self._on_tick)
        control.after_run.append(self._on_end)

    def go_down(self, call: Callable[[Callable[[], None]], bool]) -> None:
        """End the goal under way while the node still spins, so that its client is told how.

        Args:
            call: runs an action in the executor's thread, which is not this one.
        """
        if self._goal.handle is not None:
            call(lambda: self._control.halt("the node goes down"))
            time.sleep(RESULT_S)

    def destroy(self) -> None:
        """Withdraw the action, once the executor has told the last goal's client how it ended."""
        self._end("aborted", "the action is withdrawn")
        if time.monotonic() - self._ended_s > RESULT_S:
            self._server.destroy()
            return

        def withdraw() -> None:
            self._node.destroy_timer(timer)
            self._server.destroy()

        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self._node.create_timer(RESULT_S, withdraw, clock=steady)

    # ---------------------------------------------------------------- goals

    def _judge(self, goal: NavigateToPose.Goal) -> GoalResponse:
        try:
            problem = self._start_problem() or self._pose_problem(goal.pose)
        except GrpoRosError as found:
            problem = str(found)
        if problem:
            self._node.get_logger().warning(f"{ACTION}: goal refused: {problem}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _pose_problem(self, goal: PoseStamped) -> str:
        """Return why a pose could never be taken for the goal body's; empty if it could.

        Whether its frame can be transformed shows once the transforms have been listened to.
        """
        frame, base = goal.header.frame_id, self._control.runner.robot.base_frame
        if not frame:
            return f"the goal names no frame; '{base}' is the base's"
        if frame != base and not self._control.config.inputs.transform_poses:
            return f"the goal is in frame '{frame}', not '{base}', and transform_poses is false"
        point, turn = goal.pose.position, goal.pose.orientation
        quaternion = (turn.x, turn.y, turn.z, turn.w)
        if not all(math.isfinite(value) for value in (point.x, point.y, point.z, *quaternion)):
            return "the goal is not finite"
        length = math.hypot(*quaternion)
        if abs(length - 1.0) > UNIT_TOLERANCE:
            return f"the goal's quaternion has length {length:g}, not 1"
        return ""

    def _accept(self, handle: Any) -> None:
        self._pose, self._num_ticks = copy.deepcopy(handle.request.pose), 0
        self._began_ns = self._node.get_clock().now().nanoseconds
        self._began_s = time.monotonic()
        self._goal.begin(handle)
        try:
            self._control.start()
        except Exception as problem:
            self._end("aborted", f"{type(problem).__name__}: {problem}")
            raise

    def _cancel(self, _: Any) -> CancelResponse:
        self._end("canceled")
        self._control.halt("cancelled")
        return CancelResponse.ACCEPT

    # ---------------------------------------------------------------- the way there

    def _on_tick(self, now_ns: int) -> None:
        """Say where the goal is, as if somebody measured it; see whether it is reached."""
        if self._pose is None:
            return
        self._pose.header.stamp = messages.to_time(now_ns)
        self._inputs.put_pose(self.body, self._pose)
        runner = self._control.runner
        if not runner.is_placed and time.monotonic() - self._began_s > BEGIN_S:
            self._control.halt(self._what_is_missing(now_ns), "stopped")
            return
        reading = runner.reading
        if reading is None or self.body not in reading.scene.poses:
            return
        base = reading.scene.joints(runner.robot.arm_joints)[0]
        offset = reading.scene.position(self.body)[0, :2] - base[:2]
        distance = float(offset.norm())
        self._num_ticks += 1
        if self._num_ticks % FEEDBACK_PERIODS == 0:
            self._tell(now_ns, base.tolist(), distance)
        if distance < self._control.config.goal_radius_m:
            self._end("succeeded")
            self._control.halt("the goal is reached", "finished")

    def _what_is_missing(self, now_ns: int) -> str:
        """Return why the run has not begun."""
        buffer = self._control.runner.buffer
        found, refused = buffer.read(now_ns), buffer.last_rejection
        missing = found.reason if isinstance(found, NotReady) else "the robot does not stand"
        last = f"; refused last: {refused}" if refused else ""
        return f"nothing to begin from within {BEGIN_S:g} s: {missing}{last}"

    def _tell(self, now_ns: int, base: list[float], distance: float) -> None:
        feedback = NavigateToPose.Feedback()
        half = 0.5 * base[2]
        values = (base[0], base[1], 0.0, 0.0, 0.0, math.sin(half), math.cos(half))
        frame = self._control.runner.robot.base_frame
        feedback.current_pose = messages.pose(now_ns, frame, values)
        feedback.distance_remaining = distance
        feedback.navigation_time = messages.to_duration(now_ns - self._began_ns)
        self._goal.handle.publish_feedback(feedback)

    def _on_end(self, reason: str) -> None:
        self._end("aborted", reason)

    def _end(self, status: GoalStatus, error: str = "") -> None:
        self._pose = None
        if self._goal.handle is not None:
            self._ended_s = time.monotonic()
        self._goal.end(status, NavigateToPose.Result(error_msg=error))
