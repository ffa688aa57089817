"""Messages of simulation_interfaces from and to entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from geometry_msgs.msg import Accel, Pose, Twist, Vector3
from simulation_interfaces.msg import (
    Bounds,
    EntityCategory,
    EntityFilters,
    EntityInfo,
    EntityState,
    Spawnable,
    TagsFilter,
)
from torch import Tensor

from grpo_ros.deployment.simulation.entities import Entity, Filters, Spawn
from grpo_ros.deployment.simulation.primitives import (
    SPAWNABLES,
    described,
    half_extents,
    parse_primitive,
)
from grpo_ros.deployment.simulation.refusal import Refusal
from grpo_ros.deployment.simulation.regions import Box, Region, Sphere
from grpo_ros.nodes.shared import messages
from grpo_ros.tasks.base import Body

CATEGORIES = {
    EntityCategory.CATEGORY_OBJECT: "object",
    EntityCategory.CATEGORY_ROBOT: "robot",
    EntityCategory.CATEGORY_HUMAN: "human",
    EntityCategory.CATEGORY_DYNAMIC_OBJECT: "moving obstacle",
    EntityCategory.CATEGORY_STATIC_OBJECT: "static",
}
"""The standard's categories; there are neither humans nor obstacles that move by themselves."""


def filters_of(message: EntityFilters) -> Filters:
    """Return the filters that a request asks for.

    Raises:
        Refusal: bounds of a kind that is not offered, or that are malformed.
    """
    return Filters(
        message.filter,
        tuple(CATEGORIES.get(item.category, "unknown") for item in message.categories),
        tuple(message.tags.tags),
        message.tags.filter_mode == TagsFilter.FILTER_MODE_ALL,
        region_of(message.bounds),
    )


def region_of(bounds: Bounds) -> Region | None:
    """Return the region of bounds in the world frame; None where they are empty.

    Raises:
        Refusal: see `filters_of`.
    """
    if bounds.type == Bounds.TYPE_EMPTY:
        return None
    if bounds.type not in (Bounds.TYPE_BOX, Bounds.TYPE_SPHERE):
        raise Refusal(
            "RESULT_FEATURE_UNSUPPORTED",
            f"filter by bounds of type {bounds.type}",
            expected=f"box ({Bounds.TYPE_BOX}) or sphere ({Bounds.TYPE_SPHERE})",
        )
    points = np.array([[point.x, point.y, point.z] for point in bounds.points])
    if points.shape != (2, 3) or not np.isfinite(points).all():
        raise Refusal(
            "RESULT_OPERATION_FAILED", "bounds of box or sphere", expected="two finite points"
        )
    if bounds.type == Bounds.TYPE_SPHERE:
        return Sphere(points[0], float(points[1, 0]))
    return Box(points.min(axis=0), points.max(axis=0))


def bounds_of(body: Body) -> Bounds:
    """Return the box around a body in its own frame: upper, then lower corner."""
    half = half_extents(body)
    corners = [Vector3(x=s * half[0], y=s * half[1], z=s * half[2]) for s in (1.0, -1.0)]
    return Bounds(type=Bounds.TYPE_BOX, points=corners)


def info_of(entity: Entity) -> EntityInfo:
    """Return category, description and tags."""
    category = next(code for code, name in CATEGORIES.items() if name == entity.category)
    return EntityInfo(
        category=EntityCategory(category=category),
        description=entity.description,
        tags=list(entity.tags),
    )


def state_message(stamp_ns: int, frame: str, pose: Tensor, velocity: Tensor) -> EntityState:
    """Return an entity's state of pose (7,) and velocity (6,) in a frame."""
    message = EntityState()
    posed = messages.pose(stamp_ns, frame, pose.tolist())
    message.header, message.pose = posed.header, posed.pose
    linear, angular = message.twist.linear, message.twist.angular
    linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = velocity.tolist()
    return message


def pose_of(message: Pose) -> Tensor:
    """Return a pose (7,) float64."""
    point, turn = message.position, message.orientation
    values = [point.x, point.y, point.z, turn.x, turn.y, turn.z, turn.w]
    return torch.tensor(values, dtype=torch.float64)


def velocity_of(message: Twist | Accel) -> Tensor:
    """Return a velocity or acceleration (6,) float64."""
    linear, angular = message.linear, message.angular
    values = [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]
    return torch.tensor(values, dtype=torch.float64)


def spawn_of(request: Any, uri: str, resource_string: str) -> Spawn:
    """Return what a request of SpawnEntity or SpawnEntities asks for; a URI comes first."""
    return Spawn(
        uri or resource_string,
        request.name,
        request.allow_renaming,
        pose_of(request.initial_pose.pose),
        request.initial_pose.header.frame_id,
        request.entity_namespace,
    )


def spawnables() -> Sequence[Spawnable]:
    """Return one URI per primitive, with its box."""
    bodies = [parse_primitive(uri) for uri in SPAWNABLES.values()]
    return [
        Spawnable(uri=uri, description=described(body), spawn_bounds=bounds_of(body))
        for uri, body in zip(SPAWNABLES.values(), bodies, strict=True)
    ]
