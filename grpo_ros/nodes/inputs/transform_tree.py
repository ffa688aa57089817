"""Transform tree: tf2's buffer, fed by a node's own subscriptions, looked up without waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rclpy.time import Time
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, TransformException

from grpo_ros import rotations
from grpo_ros.deployment.inputs.input_refusal import InputRefusal
from grpo_ros.nodes.recording.noting import OnMessage, noted
from grpo_ros.nodes.shared import qos

Array = npt.NDArray[np.float64]
TF, TF_STATIC = "/tf", "/tf_static"
AUTHORITY = "default_authority"
TYPE = "tf2_msgs/msg/TFMessage"


class TransformTree:
    """Transforms between frames; it listens once it is asked for one.

    Args:
        node: that subscribes.
        on_change: called after transforms have come.
        on_message: is shown every message.
    """

    def __init__(
        self, node: Any, on_change: Callable[[], None], on_message: OnMessage | None = None
    ) -> None:
        self._node, self._on_change, self._on_message = node, on_change, on_message
        self._buffer = Buffer()
        self._made: list[Any] = []

    def listen(self) -> None:
        """Subscribe, unless it has."""
        if not self._made:
            moving = noted(self._on_message, TF, TYPE, self._on_moving)
            static = noted(self._on_message, TF_STATIC, TYPE, self._on_static)
            self._made = [
                self._node.create_subscription(TFMessage, TF, moving, qos.TF),
                self._node.create_subscription(TFMessage, TF_STATIC, static, qos.TF_STATIC),
            ]

    @property
    def topics(self) -> tuple[tuple[str, str], ...]:
        """Topic and type of what it listens to now."""
        return ((TF, TYPE), (TF_STATIC, TYPE)) if self._made else ()

    def at(self, target: str, source: str, stamp_ns: int) -> Array | None:
        """Return the pose (7,) of a frame in another: x, y, z in m and x, y, z, w.

        Args:
            target: frame in which the pose is given. source: whose pose.
            stamp_ns: at which time; 0: the latest.

        Returns:
            None where the transforms of that time have not come yet.

        Raises:
            InputRefusal: the frames are not connected, or what was then is forgotten.
        """
        self.listen()
        time = Time(nanoseconds=stamp_ns)
        if self._buffer.can_transform(target, source, time):
            return _pose(self._buffer.lookup_transform(target, source, time).transform)
        newest_ns = self.newest_ns(target, source)
        if newest_ns is None:
            raise InputRefusal(
                "frame",
                f"no transform from '{source}' to '{target}'",
                remedy="publish it on /tf or /tf_static",
            )
        if newest_ns < stamp_ns:
            return None
        raise InputRefusal("frame", f"the transform from '{source}' at its stamp is forgotten")

    def newest_ns(self, target: str, source: str) -> int | None:
        """Return the latest stamp at which two frames are connected; 0 where nothing moves.

        None where they are not connected.
        """
        self.listen()
        try:
            return int(self._buffer.get_latest_common_time(target, source).nanoseconds)
        except TransformException:
            return None

    def clear(self) -> None:
        """Forget the moving transforms, e.g. after the clock jumped back."""
        self._buffer.clear()

    def destroy(self) -> None:
        """Stop listening; idempotent."""
        for subscription in self._made:
            self._node.destroy_subscription(subscription)
        self._made = []

    def _on_moving(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self._buffer.set_transform(transform, AUTHORITY)
        self._on_change()

    def _on_static(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self._buffer.set_transform_static(transform, AUTHORITY)
        self._on_change()


def composed(outer: Array, inner: Array) -> Array:
    """Return the pose (7,) in A of what has the pose `inner` in B, `outer` that of B in A."""
    one, other = torch.from_numpy(outer), torch.from_numpy(inner)
    shift = one[:3] + rotations.rotate(one[3:], other[:3])
    turn = rotations.product(one[3:], other[3:])
    return torch.cat([shift, turn]).numpy()


def _pose(transform: Any) -> Array:
    shift, turn = transform.translation, transform.rotation
    return np.array([shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w])
