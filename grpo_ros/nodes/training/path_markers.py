"""Group paths as markers: each group's tips from their common start, coloured by advantage."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from grpo_ros.training.group_paths import SHOWN, GroupPaths

GENERATIONS = 3
"""Iterations that are shown; the older, the fainter."""
ALPHA = (0.95, 0.35, 0.12)
"""By age."""
WIDTH_M, START_M, TEXT_M = 0.003, 0.012, 0.03
PATHS, STARTS, OUTCOMES = "group_paths", "group_starts", "group_outcomes"
BAD, EVEN, GOOD = (0.80, 0.22, 0.18), (0.62, 0.64, 0.67), (0.16, 0.63, 0.34)


class PathMarkers:
    """Makes markers of the last iterations' paths.

    Args:
        frame: of the points.
    """

    def __init__(self, frame: str) -> None:
        self._frame = frame
        self._recent: deque[GroupPaths] = deque(maxlen=GENERATIONS)

    def add(self, paths: GroupPaths) -> MarkerArray:
        """Take an iteration's paths; return the markers of all that are shown now."""
        self._recent.appendleft(paths)
        message = MarkerArray(markers=[Marker(action=Marker.DELETEALL, ns=PATHS)])
        for age, each in enumerate(self._recent):
            message.markers += self._lines(each, age)
        message.markers += self._starts(paths)
        return message

    def _lines(self, paths: GroupPaths, age: int) -> list[Marker]:
        """Return a line for each rollout; ids tell generations apart."""
        found = []
        points, advantages = paths.points.tolist(), paths.advantage.tolist()
        for index, (way, advantage) in enumerate(zip(points, advantages, strict=True)):
            marker = self._marker(PATHS, age * SHOWN + index, Marker.LINE_STRIP)
            marker.scale.x = WIDTH_M
            marker.color = colour_of(advantage, ALPHA[age])
            marker.points = [Point(x=x, y=y, z=z) for x, y, z in _moving(way)]
            found.append(marker)
        return found

    def _starts(self, paths: GroupPaths) -> list[Marker]:
        """Return a sphere and a text where each group begins: how many of it succeeded."""
        found = []
        for group in range(int(paths.group.max()) + 1 if len(paths.group) else 0):
            members = paths.group == group
            x, y, z = paths.points[members][0, 0].tolist()
            successes, num = int(paths.outcome[members].sum()), int(members.sum())
            if num < 2:
                continue  # one rollout is no group: its colour says how it ended
            sphere = self._marker(STARTS, group, Marker.SPHERE)
            sphere.scale.x = sphere.scale.y = sphere.scale.z = START_M
            text = self._marker(OUTCOMES, group, Marker.TEXT_VIEW_FACING)
            text.scale.z = TEXT_M
            text.text = f"{successes}/{num}"
            for marker, above_m in ((sphere, 0.0), (text, 1.5 * TEXT_M)):
                marker.color = ColorRGBA(r=0.1, g=0.1, b=0.1, a=0.9)
                marker.pose.position.x, marker.pose.position.y = x, y
                marker.pose.position.z = z + above_m
                found.append(marker)
        return found

    def _marker(self, namespace: str, index: int, kind: int) -> Marker:
        marker = Marker(ns=namespace, id=index, type=kind)
        marker.header.frame_id = self._frame
        marker.pose.orientation.w = 1.0
        return marker


def colour_of(advantage: float, alpha: float) -> ColorRGBA:
    """Return green for better than the group, red for worse, grey for the same.

    Steeper where advantages are small: most are.
    """
    share = max(-1.0, min(1.0, advantage))
    share = math.copysign(math.sqrt(abs(share)), share)
    end = GOOD if share > 0.0 else BAD
    r, g, b = (even + abs(share) * (to - even) for even, to in zip(EVEN, end, strict=True))
    return ColorRGBA(r=r, g=g, b=b, a=alpha)


def _moving(points: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """Return the points of a path up to where it stays; at least two."""
    last = len(points) - 1
    while last > 1 and points[last] == points[last - 1]:
        last -= 1
    return points[: last + 1]
