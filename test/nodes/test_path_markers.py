"""Group paths as markers: from one start, coloured by advantage, fading by age."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("rclpy")

from visualization_msgs.msg import Marker  # noqa: E402

from grpo_ros.nodes.training.path_markers import (  # noqa: E402
    ALPHA,
    GENERATIONS,
    OUTCOMES,
    PATHS,
    STARTS,
    PathMarkers,
    colour_of,
)
from grpo_ros.training.group_paths import GroupPaths  # noqa: E402

pytestmark = pytest.mark.ros


def paths(iteration: int = 0, size: int = 2) -> GroupPaths:
    """Two groups that start at 0 and at 1 and go up; the first member of each is better."""
    num = 2 * size
    group = torch.arange(num) // size
    points = torch.zeros(num, 5, 3)
    points[:, :, 0] = group.float().unsqueeze(1)
    points[:, :, 2] = torch.tensor([0.0, 0.1, 0.2, 0.2, 0.2])
    outcome = torch.arange(num) % size == 0
    return GroupPaths(points, group, outcome, outcome.float() - 0.5, iteration)


def of(message, namespace):
    return [m for m in message.markers if m.ns == namespace and m.action == Marker.ADD]


def test_a_line_follows_each_rollout_as_long_as_it_moves():
    message = PathMarkers("base").add(paths())
    assert message.markers[0].action == Marker.DELETEALL
    lines = of(message, PATHS)
    assert len(lines) == 4 and {m.type for m in lines} == {Marker.LINE_STRIP}
    assert {m.header.frame_id for m in message.markers[1:]} == {"base"}
    assert [p.z for p in lines[0].points] == pytest.approx([0.0, 0.1, 0.2])
    starts = {(m.points[0].x, m.points[0].y, m.points[0].z) for m in lines}
    assert starts == {(0.0, 0.0, 0.0), (1.0, 0.0, 0.0)}, "members of a group start together"


def test_better_than_the_group_is_green_worse_is_red_the_same_is_grey():
    good, bad, even = colour_of(1.0, 0.5), colour_of(-1.0, 0.5), colour_of(0.0, 0.5)
    assert good.g > good.r and bad.r > bad.g and abs(even.r - even.g) < 0.05
    assert good.a == 0.5
    slightly = colour_of(0.2, 1.0)
    assert even.g - 0.05 < slightly.g < good.g + 0.05 and slightly.r > good.r
    lines = of(PathMarkers("base").add(paths()), PATHS)
    assert lines[0].color.g > lines[0].color.r and lines[1].color.r > lines[1].color.g


def test_older_iterations_fade_and_then_go():
    markers = PathMarkers("base")
    for iteration in range(5):
        message = markers.add(paths(iteration))
    lines = of(message, PATHS)
    assert len(lines) == 4 * GENERATIONS
    assert len({(m.ns, m.id) for m in message.markers[1:]}) == len(message.markers) - 1
    assert [round(m.color.a, 3) for m in lines[::4]] == [round(a, 3) for a in ALPHA]


def test_beside_each_start_stands_how_many_succeeded():
    message = PathMarkers("base").add(paths())
    texts = of(message, OUTCOMES)
    assert [m.text for m in texts] == ["1/2", "1/2"]
    assert [m.pose.position.x for m in texts] == [0.0, 1.0]
    assert len(of(message, STARTS)) == 2
    single = PathMarkers("base").add(paths(size=1))
    assert not of(single, OUTCOMES), "one rollout is no group"
