"""The ROS interface of the learner: services, metrics, diagnostics. See nodes/learner.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future as ConcurrentFuture
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from grpo_ros.algorithms.histograms import Histogram
from grpo_ros.errors import GrpoRosError
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.report.summary import duration, progress_line
from grpo_ros.training.observer import Progress, TrainingObserver
from grpo_ros.training.requests import Requests

DEADLINE_S = 120.0
"""Longest wait of a service for the trainer, which answers between iterations."""
PROGRESS_S = 10.0
DIAGNOSTICS_S = 1.0
REWARDS = "reward_histogram"


class Learner(Node, TrainingObserver):
    """The node `learner`. Observer methods belong to the trainer's thread, the rest to ROS's.

    Args:
        kwargs: of rclpy.node.Node.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("learner", **kwargs)
        self._requests: Requests | None = None
        self._progress: Progress | None = None
        self._metrics: Mapping[str, float] = {}
        self._rewards: tuple[int, ...] = ()
        self._alarm, self._run = "", ""
        self._state, self._failure, self._said_s = "starting", "", 0.0
        self._wall = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_service(SetBool, "~/pause", self._on_pause)
        self.create_service(Trigger, "~/save_checkpoint", self._on_save)
        self.create_service(Trigger, "~/export_policy", self._on_export)
        self._diagnostics_out = self.create_publisher(
            DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS
        )
        self.create_timer(DIAGNOSTICS_S, self._publish_diagnostics, clock=self._wall)
        self._publish_metrics = self._metrics_publisher()

    def attach(self, requests: Requests, run: str = "") -> None:
        """Take what service calls are passed on to, and what the run is called."""
        self._requests, self._run, self._state = requests, run, "running"

    def finish(self, failure: str) -> None:
        """Publish how it ended; an empty failure means well."""
        self._state, self._failure = ("failed" if failure else "finished"), failure
        self._publish_diagnostics()

    # ---------------------------------------------------------------- observer

    def on_iteration(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Publish the metrics; keep them for diagnostics; say something now and then."""
        self._metrics, self._progress = dict(metrics), progress
        self._publish_metrics(metrics)
        now_s = self._wall.now().nanoseconds / messages.NANOSECONDS
        if now_s - self._said_s >= PROGRESS_S:
            self._said_s = now_s
            self.get_logger().info(
                f"iteration {int(metrics['iteration'])}: {progress_line(progress)}"
            )

    def on_histograms(self, histograms: Mapping[str, Histogram]) -> None:
        """Keep that of rewards for diagnostics."""
        if REWARDS in histograms:
            self._rewards = histograms[REWARDS].counts

    def on_alarm(self, reason: str) -> None:
        """Keep the alarm for diagnostics, and log it."""
        self._alarm = reason
        if reason:
            self.get_logger().warning(reason)

    def on_progress(self, progress: Progress) -> None:
        """Keep the progress for diagnostics."""
        self._progress = progress

    def on_message(self, text: str) -> None:
        """Log a line."""
        self.get_logger().info(text)

    # ---------------------------------------------------------------- services

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self._requests is None:
            response.message = f"the learner is {self._state}"
            return response
        self._requests.pause(request.data)
        response.success = True
        response.message = "paused after this iteration" if request.data else "going on"
        return response

    async def _on_save(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._answer(response, lambda requests: requests.checkpoint())

    async def _on_export(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._answer(response, lambda requests: requests.export())

    async def _answer(
        self,
        response: Trigger.Response,
        ask: Callable[[Requests], ConcurrentFuture[Path]],
    ) -> Trigger.Response:
        """Answer with the path that the trainer writes, or with why it does not."""
        if self._requests is None or self._state != "running":
            response.message = f"the learner is {self._state}"
            return response
        wanted = ask(self._requests)
        try:
            response.message = str(await self._within(DEADLINE_S, wanted))
            response.success = True
        except (GrpoRosError, OSError) as problem:
            response.message = str(problem)
        except Exception as problem:  # whatever the trainer met, the caller has to be told
            response.message = f"{type(problem).__name__}: {problem}"
        return response

    async def _within(self, deadline_s: float, wanted: ConcurrentFuture[Path]) -> Path:
        """Return the trainer's result, without holding up the executor meanwhile."""
        executor = self.executor
        arrived: Future = Future(executor=executor)

        def arrive() -> None:
            if not arrived.done():
                arrived.set_result(None)

        def on_trainer(_: ConcurrentFuture[Path]) -> None:
            executor.create_task(arrive)
            executor.wake()

        wanted.add_done_callback(on_trainer)
        timer = self.create_timer(deadline_s, arrive, clock=self._wall)
        try:
            await arrived
        finally:
            self.destroy_timer(timer)
        if not wanted.done():
            wanted.cancel()
            raise TimeoutError(f"the trainer did not answer within {duration(deadline_s)}")
        return wanted.result()

    # ---------------------------------------------------------------- topics

    def _metrics_publisher(self) -> Callable[[Mapping[str, float]], None]:
        try:
            from pal_statistics_msgs.msg import Statistic, Statistics
        except ImportError:
            self.get_logger().info("pal_statistics_msgs is not installed: no ~/metrics topic")
            return lambda metrics: None
        publisher = self.create_publisher(Statistics, "~/metrics", qos.STATE)

        def publish(metrics: Mapping[str, float]) -> None:
            message = Statistics()
            message.header.stamp = self.get_clock().now().to_msg()
            message.statistics = [
                Statistic(name=name, value=float(value))
                for name, value in metrics.items()
                if isinstance(value, int | float)
            ]
            publisher.publish(message)

        return publish

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [self._status()]
        self._diagnostics_out.publish(message)

    def _status(self) -> DiagnosticStatus:
        state = self._state
        if state == "running" and self._requests is not None and self._requests.is_paused:
            state = "paused"
        level, text = DiagnosticStatus.OK, state
        if self._failure:
            level, text = DiagnosticStatus.ERROR, self._failure
        elif self._alarm:
            level, text = DiagnosticStatus.WARN, f"{state}; {self._alarm}"
        values: dict[str, object] = {"state": state, "run": self._run}
        for name in ("iteration", "env_steps", "train_success", "approx_kl", "learning_rate"):
            if name in self._metrics:
                values[name] = self._metrics[name]
        if self._rewards:
            values[REWARDS] = " ".join(map(str, self._rewards))
        progress = self._progress
        if progress is not None:
            values["phase"] = progress.phase
            if progress.total:
                values["share_done"] = f"{progress.done / progress.total:.4f}"
            if progress.success is not None:
                values["success"] = f"{progress.success:.3f}"
            if progress.wilson_95 is not None:
                values["success_wilson_95"] = "[{:.3f}, {:.3f}]".format(*progress.wilson_95)
            if progress.steps_per_s is not None:
                values["steps_per_s"] = f"{progress.steps_per_s:.0f}"
            if progress.remaining_s is not None:
                values["time_left"] = duration(progress.remaining_s)
        return messages.status(level, "learner: training", text, values)
