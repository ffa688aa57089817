"""Isaac Lab's scene of a robot and a task's primitives; nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import isaaclab.sim as sim_utils
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, AssetBaseCfg, RigidObjectCfg
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sim.spawners.materials import UsdPhysicsRigidBodyMaterialCfg
from isaaclab_newton.sim.schemas import MujocoCollisionCfg, MujocoRigidBodyCfg
from isaaclab_newton.sim.spawners.materials import NewtonMaterialCfg

from grpo_ros.robots.robot import Robot
from grpo_ros.simulators.isaaclab.assets import robot_usd
from grpo_ros.tasks.base import Body

ROBOT = "robot"
TORSION, ROLLING = 0.02, 0.001
"""Friction against turning and rolling in a contact, as in our MuJoCo model."""
ROBOT_FRICTION = 1.0


def scene_config(robot: Robot, bodies: Sequence[Body], num_envs: int) -> Any:
    """Return the configuration of N environments, all at the origin.

    Environments lie on top of each other (spacing 0): an environment's place in the world enters
    its float32 coordinates, so that two copies of one state would differ. Newton's worlds and
    Isaac Lab's collision filtering keep them apart.
    """
    config = InteractiveSceneCfg(num_envs=num_envs, env_spacing=0.0)
    for body in bodies:
        setattr(config, body.name, _asset(body))
    setattr(config, ROBOT, _articulation(robot))
    return config


def _articulation(robot: Robot) -> ArticulationCfg:
    joints = dict(zip(robot.joint_names, robot.home.tolist(), strict=True))
    mimics = robot.gripper.mimic_joints if robot.gripper else ()
    if robot.gripper:
        joints.update(dict.fromkeys(mimics, joints[robot.gripper.joint]))
    values = {
        "stiffness": robot.stiffness,
        "damping": robot.damping,
        "armature": robot.armature,
    }
    gains = {
        key: dict(zip(robot.joint_names, value.tolist(), strict=True))
        for key, value in values.items()
    }
    effort = {limit.name: limit.effort for limit in robot.limits}
    actuators = {
        "driven": ImplicitActuatorCfg(
            joint_names_expr=list(robot.joint_names), effort_limit_sim=effort, **gains
        )
    }
    if robot.gripper and mimics:  # they follow the driver by a constraint, not by a servo
        actuators["following"] = ImplicitActuatorCfg(
            joint_names_expr=list(mimics),
            stiffness=0.0,
            damping=0.0,
            armature=robot.gripper.armature,
        )
    spawn = sim_utils.UsdFileCfg(
        usd_path=str(robot_usd(robot)),
        rigid_props=[MujocoRigidBodyCfg(gravcomp=1.0)],  # as the arm's own controller does
        collision_props=[sim_utils.UsdPhysicsCollisionCfg(), MujocoCollisionCfg(condim=4)],
        physics_material=_material(ROBOT_FRICTION),
    )
    return ArticulationCfg(
        prim_path=f"{{ENV_REGEX_NS}}/{ROBOT}",
        spawn=spawn,
        init_state=ArticulationCfg.InitialStateCfg(joint_pos=joints),
        actuators=actuators,
    )


def _asset(body: Body) -> AssetBaseCfg:
    path, spawn = f"{{ENV_REGEX_NS}}/{body.name}", _spawn(body)
    if body.motion == "static":
        state = AssetBaseCfg.InitialStateCfg(pos=body.position)
        return AssetBaseCfg(prim_path=path, spawn=spawn, init_state=state)
    return RigidObjectCfg(
        prim_path=path,
        spawn=spawn,
        init_state=RigidObjectCfg.InitialStateCfg(pos=body.position),
    )


def _spawn(body: Body) -> Any:
    common: dict[str, Any] = {
        "visual_material": sim_utils.PreviewSurfaceCfg(
            diffuse_color=body.colour[:3], opacity=body.colour[3]
        )
    }
    if not body.visual_only:
        common["collision_props"] = [
            sim_utils.UsdPhysicsCollisionCfg(),
            MujocoCollisionCfg(condim=4),
        ]
        common["physics_material"] = _material(body.friction)
    if body.motion != "static":
        is_fixed = body.motion == "kinematic"
        common["rigid_props"] = sim_utils.UsdPhysicsRigidBodyCfg(kinematic_enabled=is_fixed)
        common["mass_props"] = sim_utils.MassCfg(mass=body.mass)
    if body.shape == "box":
        return sim_utils.CuboidCfg(size=tuple(2.0 * half for half in body.size), **common)
    if body.shape == "cylinder":
        return sim_utils.CylinderCfg(radius=body.size[0], height=2.0 * body.size[1], **common)
    return sim_utils.SphereCfg(radius=body.size[0], **common)


def _material(friction: float) -> list[Any]:
    sliding = UsdPhysicsRigidBodyMaterialCfg(static_friction=friction, dynamic_friction=friction)
    return [sliding, NewtonMaterialCfg(torsional_friction=TORSION, rolling_friction=ROLLING)]
