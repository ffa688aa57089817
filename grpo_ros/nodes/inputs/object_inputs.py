"""Object inputs: poses of bodies from pose topics, from detections or from the transform tree."""

from __future__ import annotations

import functools
import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Pose, PoseStamped

from grpo_ros.deployment.inputs.input_refusal import InputRefusal
from grpo_ros.nodes.inputs.intake import Intake
from grpo_ros.nodes.inputs.transform_tree import TransformTree, composed

Array = npt.NDArray[np.float64]
Waiting = tuple[str, Array, int, float]
"""Frame, pose (7,), stamp in ns and arrival in s of a pose whose transform has not come."""
MAX_WAITING = 8
"""Poses of a body that wait for the transform of their time; the oldest gives way."""


class ObjectInputs:
    """Takes poses of the bodies that a contract observes.

    Args:
        intake: that stores them.
        tree: that turns poses in other frames into poses in the base frame.
        transform_poses: whether it may; otherwise such poses are refused.
        min_score: of a detection's best hypothesis.
    """

    def __init__(
        self, intake: Intake, tree: TransformTree, transform_poses: bool, min_score: float
    ) -> None:
        self._intake, self._tree, self._buffer = intake, tree, intake.buffer
        self._transform_poses, self._min_score = transform_poses, min_score
        self.clear()

    def clear(self) -> None:
        """Forget what waits for a transform, and how far frames were followed."""
        self._waiting: dict[str, deque[Waiting]] = {}
        self._followed: dict[str, int] = {}

    # ---------------------------------------------------------------- messages

    def on_pose(self, body: str, message: PoseStamped) -> None:
        """Take the pose of a body."""
        self._take(body, message.header, message.pose)

    def on_detections(self, message: Any) -> None:
        """Take the poses in a vision_msgs/Detection3DArray that are of observed bodies.

        A detection is of the body that its id names, else of the one that the class of its best
        hypothesis names. A body that is found several times is refused: which one is not known.
        """
        found: dict[str, list[tuple[Any, Any]]] = {}
        for detection in message.detections:
            best = max(detection.results, key=_score, default=None)
            names = [detection.id] + ([] if best is None else [best.hypothesis.class_id])
            body = next((name for name in names if name in self._buffer.body_names), None)
            if body is not None:
                found.setdefault(body, []).append((detection, best))
        for body, detections in found.items():
            if len(detections) > 1:
                self._buffer.refuse(
                    "several", f"'{body}' is detected {len(detections)} times in one message"
                )
                continue
            detection, best = detections[0]
            score = -math.inf if best is None else _score(best)
            if score < self._min_score:
                self._buffer.refuse(
                    "score",
                    f"detection of '{body}' has score {score:g}, at least {self._min_score:g}",
                )
                continue
            header = detection.header if detection.header.frame_id else message.header
            self._take(body, header, best.pose.pose)

    def retry(self) -> None:
        """Take the poses that waited for transforms which have come."""
        waiting, self._waiting = self._waiting, {}
        for body, poses in waiting.items():
            for pose in poses:
                self._intake.store(_label(body), functools.partial(self._put, body, *pose))

    def follow_frames(self) -> None:
        """Take the frames that bear the bodies' names, at the latest time that is known."""
        base = self._buffer.base_frame
        for body in self._buffer.body_names:
            newest_ns = self._tree.newest_ns(base, body)
            if newest_ns is None or newest_ns == self._followed.get(body):
                continue
            self._followed[body] = newest_ns
            put = functools.partial(self._put_frame, body, newest_ns, self._intake.steady())
            self._intake.store(_label(body), put)

    # ---------------------------------------------------------------- poses

    def _take(self, body: str, header: Any, pose: Pose) -> None:
        point, turn = pose.position, pose.orientation
        values = np.array([point.x, point.y, point.z, turn.x, turn.y, turn.z, turn.w])
        put = functools.partial(self._put, body, header.frame_id, values)
        self._intake.take(_label(body), header.stamp, put)

    def _put(self, body: str, frame: str, pose: Array, stamp_ns: int, arrival_s: float) -> bool:
        base = self._buffer.base_frame
        if frame != base and self._transform_poses:
            mount = self._tree.at(base, frame, stamp_ns)
            if mount is None:
                poses = self._waiting.setdefault(body, deque(maxlen=MAX_WAITING))
                poses.append((frame, pose, stamp_ns, arrival_s))
                return False
            frame, pose = base, composed(mount, pose)
        values = pose.tolist()
        return self._buffer.put_pose(stamp_ns, body, frame, values[:3], values[3:], arrival_s)

    def _put_frame(self, body: str, stamp_ns: int, arrival_s: float) -> bool:
        base = self._buffer.base_frame
        if stamp_ns == 0:
            raise InputRefusal(
                "unstamped",
                f"frame '{body}' hangs on '{base}' by static transforms alone, without stamps",
                remedy="publish it on /tf, or its pose on a topic",
            )
        pose = self._tree.at(base, body, stamp_ns)
        if pose is None:
            return False
        values = pose.tolist()
        return self._buffer.put_pose(stamp_ns, body, base, values[:3], values[3:], arrival_s)


def _score(result: Any) -> float:
    score = float(result.hypothesis.score)
    return score if math.isfinite(score) else -math.inf


def _label(body: str) -> str:
    return f"pose of '{body}'"
