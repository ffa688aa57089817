"""Builds the MuJoCo model of a robot and a task's primitives from one robot description."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from grpo_ros.errors import RobotError, SimulatorError
from grpo_ros.robots.robot import Robot
from grpo_ros.simulators.mujoco.urdf_text import urdf_text
from grpo_ros.tasks.base import Body
from grpo_ros.tasks.camera import Camera, ground, overview

GEOM_TYPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
}
ROBOT_COLLISION, OBJECT_COLLISION = 2, 1
"""Collision classes: objects meet everything, the robot meets objects but not itself."""

UNSEEN_GROUP = 3
"""Geoms of this group are not drawn: MuJoCo shows the first three."""


def build_model(
    robot: Robot, bodies: Sequence[Body], timestep_s: float, cameras: Sequence[Camera] = ()
) -> mujoco.MjModel:
    """Return the compiled model of a robot among primitives.

    Every commanded joint gets a position servo of the robot's stiffness and damping; the
    gripper's mimic joints are tied by equality constraints, since a URDF's mimic is not carried
    over. Kinematic bodies become mocap bodies, whose poses are given from outside.

    Raises:
        RobotError: MuJoCo cannot build the robot. SimulatorError: it can, but not with the bodies.
    """
    spec = _spec(robot)
    spec.option.timestep = timestep_s
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # The pyramidal cone converges within these iterations at 10 ms; elliptic with a large
    # impratio does not, and throws a grasped cube away.
    spec.option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    spec.option.iterations = 10
    spec.option.ls_iterations = 20
    for body in spec.bodies:
        body.gravcomp = 1.0  # the arm's own controller compensates gravity
    for geom in spec.geoms:
        if geom.contype or geom.conaffinity:
            geom.contype, geom.conaffinity = ROBOT_COLLISION, OBJECT_COLLISION
            geom.friction = [1.0, 0.02, 0.001]
            geom.condim = 4
    _hide_what_only_collides(spec)
    _add_servos(spec, robot)
    try:
        for body in bodies:
            _add_body(spec, body)
        _add_view(spec, bodies, cameras)
        return spec.compile()
    except ValueError as problem:
        _check_alone(robot)
        raise SimulatorError(
            f"MuJoCo cannot build '{robot.name}' with the bodies "
            f"{[body.name for body in bodies]}: {_in_one_line(problem)}",
            expected="names that no link of the robot has, each once; sizes and masses, all > 0",
            remedy="change the task's bodies",
        ) from problem


def _spec(robot: Robot) -> mujoco.MjSpec:
    text, meshes = urdf_text(robot)
    try:
        return mujoco.MjSpec.from_string(text, assets=meshes)
    except ValueError as problem:
        raise _unusable(robot, problem) from problem


def _check_alone(robot: Robot) -> None:
    """Raise RobotError where the robot alone is what MuJoCo cannot build."""
    try:
        _spec(robot).compile()
    except ValueError as problem:
        raise _unusable(robot, problem) from problem


def _unusable(robot: Robot, problem: ValueError) -> RobotError:
    return RobotError(
        f"{robot.urdf_path}: MuJoCo cannot build it: {_in_one_line(problem)}",
        expected="links that move with an <inertial>, meshes as binary STL or OBJ",
    )


def _in_one_line(problem: ValueError) -> str:
    return ", ".join(str(problem).removeprefix("Error: ").splitlines())


def _hide_what_only_collides(spec: mujoco.MjSpec) -> None:
    """Leave a link's collision geometry undrawn where the link has a look of its own."""
    for body in spec.bodies:
        colliding = [geom for geom in body.geoms if geom.contype or geom.conaffinity]
        if len(colliding) < len(body.geoms):
            for geom in colliding:
                geom.group = UNSEEN_GROUP


def _add_servos(spec: mujoco.MjSpec, robot: Robot) -> None:
    for name, stiffness, damping, armature, limit in zip(
        robot.joint_names,
        robot.stiffness.tolist(),
        robot.damping.tolist(),
        robot.armature.tolist(),
        robot.limits,
        strict=True,
    ):
        joint = spec.joint(name)
        joint.armature = armature
        servo = spec.add_actuator(name=name, target=name)
        servo.trntype = mujoco.mjtTrn.mjTRN_JOINT
        servo.gaintype = mujoco.mjtGain.mjGAIN_FIXED
        servo.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        gain, bias = np.zeros(10), np.zeros(10)
        gain[0], bias[1], bias[2] = stiffness, -stiffness, -damping
        servo.gainprm, servo.biasprm = gain, bias
        servo.forcelimited = True
        servo.forcerange = [-limit.effort, limit.effort]
    if robot.gripper is None:
        return
    for mimic in robot.gripper.mimic_joints:
        spec.joint(mimic).armature = robot.gripper.armature
        polynomial = np.zeros(11)
        polynomial[1] = 1.0
        spec.add_equality(
            name=f"{mimic}_mimics",
            type=mujoco.mjtEq.mjEQ_JOINT,
            objtype=mujoco.mjtObj.mjOBJ_JOINT,
            name1=mimic,
            name2=robot.gripper.joint,
            data=polynomial,
        )


def _add_body(spec: mujoco.MjSpec, body: Body) -> None:
    size = list(body.size) + [0.0] * (3 - len(body.size))
    parent = spec.worldbody.add_body(name=body.name, pos=list(body.position))
    geom = parent.add_geom(
        name=body.name, type=GEOM_TYPES[body.shape], size=size, rgba=list(body.colour)
    )
    parent.mocap = body.motion == "kinematic"
    if body.visual_only:
        geom.contype = geom.conaffinity = 0
        return
    geom.contype = OBJECT_COLLISION
    geom.conaffinity = OBJECT_COLLISION | ROBOT_COLLISION
    geom.friction = [body.friction, 0.02, 0.001]
    geom.condim = 4
    if body.motion == "dynamic":
        geom.mass = body.mass
        parent.add_freejoint(name=f"{body.name}_free")


def _add_view(spec: mujoco.MjSpec, bodies: Sequence[Body], cameras: Sequence[Camera]) -> None:
    """Add a light, the overview, and the cameras that are observed."""
    view, ((x, y, z), size) = overview(bodies), ground(bodies)
    spec.worldbody.add_light(pos=[x - 0.2, y, z + 2.5 * size], dir=[0.0, 0.0, -1.0])
    for camera in {view.name: view, **{camera.name: camera for camera in cameras}}.values():
        x, y, z, w = camera.quaternion
        spec.worldbody.add_camera(
            name=camera.name,
            pos=list(camera.eye),
            quat=[w, x, y, z],
            fovy=math.degrees(camera.field_of_view),
        )
