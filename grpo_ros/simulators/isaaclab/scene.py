"""Isaac Lab's scene of a robot and a task's primitives; nothing is fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import isaaclab.sim as sim_utils
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, AssetBaseCfg, RigidObjectCfg
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sensors import CameraCfg
from isaaclab.sim.spawners.materials import UsdPhysicsRigidBodyMaterialCfg
from isaaclab_newton.sim.schemas import MujocoCollisionCfg, MujocoRigidBodyCfg
from isaaclab_newton.sim.spawners.materials import NewtonMaterialCfg

from grpo_ros.errors import MissingExtraError
from grpo_ros.robots.robot import Robot
from grpo_ros.simulators.isaaclab.assets import robot_usd
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig
from grpo_ros.simulators.isaaclab.names import LIGHT, ROBOT, body_asset, camera_asset
from grpo_ros.tasks.base import Body
from grpo_ros.tasks.camera import Camera

TORSION, ROLLING = 0.02, 0.001
"""Friction against turning and rolling in a contact, as in our MuJoCo model."""
ROBOT_FRICTION = 1.0
FOCAL_LENGTH = 24.0
"""Of every camera, in USD's tenths of a stage unit; only its ratio to the aperture counts."""


def scene_config(
    robot: Robot,
    bodies: Sequence[Body],
    cameras: Sequence[Camera],
    num_envs: int,
    settings: IsaacLabConfig,
) -> Any:
    """Return the configuration of N environments, all at the origin.

    Marks that are seen and never touched are left out where no camera is there to see them.

    Environments lie on top of each other (spacing 0): an environment's place in the world enters
    its float32 coordinates, so that two copies of one state would differ. Newton's worlds and
    Isaac Lab's collision filtering keep them apart.
    """
    config = InteractiveSceneCfg(num_envs=num_envs, env_spacing=0.0)
    for body in bodies:
        if cameras or not body.visual_only:
            setattr(config, body_asset(body.name), _asset(body))
    for camera in cameras:
        setattr(config, camera_asset(camera.name), _camera(camera, settings.backend))
    if cameras:
        light = sim_utils.DistantLightCfg(intensity=2000.0, color=(1.0, 1.0, 1.0))
        setattr(config, LIGHT, AssetBaseCfg(prim_path=f"/World/{LIGHT}", spawn=light))
    setattr(config, ROBOT, _articulation(robot, settings))
    return config


def _articulation(robot: Robot, settings: IsaacLabConfig) -> ArticulationCfg:
    home = dict(zip(robot.joint_names, robot.home.tolist(), strict=True))
    effort = {limit.name: limit.effort for limit in robot.limits}
    stiffness = dict(zip(robot.joint_names, robot.stiffness.tolist(), strict=True))
    damping = dict(zip(robot.joint_names, robot.damping.tolist(), strict=True))
    armature = dict(zip(robot.joint_names, robot.armature.tolist(), strict=True))
    if robot.gripper is not None:
        driver, mimics = robot.gripper.joint, robot.gripper.mimic_joints
        for values in (home, armature):
            values.update(dict.fromkeys(mimics, values[driver]))
        # One servo's work shared among driver and mimics: the same whether the asset ties them, as
        # a URDF's mimic does, or not.
        for values in (stiffness, damping, effort):
            share = values[driver] / (1 + len(mimics))
            values.update(dict.fromkeys((driver, *mimics), share))
    servos = ImplicitActuatorCfg(
        joint_names_expr=list(home),
        effort_limit_sim=effort,
        stiffness=stiffness,
        damping=damping,
        armature=armature,
    )
    spawn = sim_utils.UsdFileCfg(
        usd_path=str(robot_usd(robot, settings.robot_asset)),
        rigid_props=[_weightless(settings.backend)],
        collision_props=[sim_utils.UsdPhysicsCollisionCfg(), MujocoCollisionCfg(condim=4)],
        physics_material=_material(ROBOT_FRICTION),
    )
    return ArticulationCfg(
        prim_path=f"{{ENV_REGEX_NS}}/{ROBOT}",
        spawn=spawn,
        init_state=ArticulationCfg.InitialStateCfg(joint_pos=home),
        actuators={"servos": servos},
    )


def _weightless(backend: str) -> Any:
    """Return what compensates the arm's weight, as its own controller does."""
    if backend == "kit":
        from isaaclab_physx.sim.schemas import PhysxRigidBodyCfg

        return PhysxRigidBodyCfg(disable_gravity=True)
    return MujocoRigidBodyCfg(gravcomp=1.0)


def _asset(body: Body) -> AssetBaseCfg:
    path, spawn = f"{{ENV_REGEX_NS}}/{body_asset(body.name)}", _spawn(body)
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


def _camera(camera: Camera, backend: str) -> CameraCfg:
    # A pinhole's field of view is that of its aperture, seen over the focal length.
    aperture = 2.0 * FOCAL_LENGTH * math.tan(camera.field_of_view / 2.0)
    lens = sim_utils.PinholeCameraCfg(
        focal_length=FOCAL_LENGTH,
        horizontal_aperture=aperture * camera.width / camera.height,
        vertical_aperture=aperture,
        clipping_range=(0.01, 20.0),
    )
    return CameraCfg(
        prim_path=f"{{ENV_REGEX_NS}}/{camera_asset(camera.name)}",
        spawn=lens,
        offset=CameraCfg.OffsetCfg(pos=camera.eye, rot=camera.quaternion, convention="opengl"),
        width=camera.width,
        height=camera.height,
        data_types=["rgb"],
        renderer_cfg=_renderer(backend),
    )


def _renderer(backend: str) -> Any:
    """Return the configuration of a backend's renderer.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        if backend == "kit":
            from isaaclab_physx.renderers import IsaacRtxRendererCfg

            return IsaacRtxRendererCfg()
        from isaaclab_newton.renderers import NewtonWarpRendererCfg

        return NewtonWarpRendererCfg(use_cuda_graph=False)
    except ImportError as problem:
        raise MissingExtraError(
            f"task.cameras needs Isaac Lab's renderer of the {backend} backend: {problem}",
            remedy="run `make isaaclab`, or choose simulator:=mujoco",
        ) from None


def _material(friction: float) -> list[Any]:
    sliding = UsdPhysicsRigidBodyMaterialCfg(static_friction=friction, dynamic_friction=friction)
    return [sliding, NewtonMaterialCfg(torsional_friction=TORSION, rolling_friction=ROLLING)]
