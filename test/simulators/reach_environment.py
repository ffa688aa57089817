"""An Isaac Lab environment as a user has one: an arm and a cube to reach, of local parts only."""

import isaaclab.envs.mdp as mdp
import isaaclab.sim as sim_utils
import torch
from isaaclab.actuators import DelayedPDActuatorCfg, ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, RigidObjectCfg, RigidObjectCollectionCfg
from isaaclab.envs import ManagerBasedRLEnvCfg
from isaaclab.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
    TerminationTermCfg,
)
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.utils import configclass

from grpo_ros.robots.robot import load_robot
from grpo_ros.simulators.isaaclab.assets import robot_usd

ROBOT = load_robot("franka_fr3")
HOME = dict(zip(ROBOT.joint_names, ROBOT.home.tolist(), strict=True))
RADIUS_M = 0.48


def _cube(name, position):
    return RigidObjectCfg(
        prim_path=f"{{ENV_REGEX_NS}}/{name}",
        spawn=sim_utils.CuboidCfg(
            size=(0.04, 0.04, 0.04),
            rigid_props=sim_utils.UsdPhysicsRigidBodyCfg(),
            mass_props=sim_utils.MassCfg(mass=0.05),
            collision_props=sim_utils.UsdPhysicsCollisionCfg(),
        ),
        init_state=RigidObjectCfg.InitialStateCfg(pos=position),
    )


@configclass
class SceneCfg(InteractiveSceneCfg):
    robot = ArticulationCfg(
        prim_path="{ENV_REGEX_NS}/robot",
        spawn=sim_utils.UsdFileCfg(usd_path=str(robot_usd(ROBOT))),
        init_state=ArticulationCfg.InitialStateCfg(
            joint_pos={**HOME, "fr3_finger_joint2": HOME["fr3_finger_joint1"]}
        ),
        actuators={
            "arm": ImplicitActuatorCfg(
                joint_names_expr=["fr3_joint.*"], stiffness=400.0, damping=80.0, armature=0.3
            ),
            "hand": ImplicitActuatorCfg(
                joint_names_expr=["fr3_finger.*"], stiffness=500.0, damping=50.0, armature=0.1
            ),
        },
    )
    table = RigidObjectCfg(
        prim_path="{ENV_REGEX_NS}/table",
        spawn=sim_utils.CuboidCfg(
            size=(0.8, 1.0, 0.04),
            rigid_props=sim_utils.UsdPhysicsRigidBodyCfg(kinematic_enabled=True),
            collision_props=sim_utils.UsdPhysicsCollisionCfg(),
        ),
        init_state=RigidObjectCfg.InitialStateCfg(pos=(0.5, 0.0, -0.02)),
    )
    target = _cube("target", (0.5, 0.0, 0.02))
    others = RigidObjectCollectionCfg(
        rigid_objects={
            "left": _cube("other_left", (0.4, 0.3, 0.06)),
            "right": _cube("other_right", (0.4, -0.3, 0.04)),
        }
    )


@configclass
class ActionsCfg:
    arm = mdp.JointPositionActionCfg(
        asset_name="robot", joint_names=["fr3_joint.*"], scale=0.5, use_default_offset=True
    )


def target_from_hand(env):
    """(N, 3): what has to become short."""
    hand = env.scene["robot"].data.body_link_pos_w.torch[:, -1]
    return env.scene["target"].data.root_link_pos_w.torch - hand


@configclass
class ObservationsCfg:
    @configclass
    class Policy(ObservationGroupCfg):
        joints = ObservationTermCfg(func=mdp.joint_pos_rel)
        speeds = ObservationTermCfg(func=mdp.joint_vel_rel, history_length=2)
        target = ObservationTermCfg(func=target_from_hand)
        action = ObservationTermCfg(func=mdp.last_action)

        def __post_init__(self):
            self.enable_corruption = True
            self.concatenate_terms = True

    policy: Policy = Policy()


@configclass
class EventsCfg:
    joints = EventTermCfg(
        func=mdp.reset_joints_by_offset,
        mode="reset",
        params={"position_range": (-0.05, 0.05), "velocity_range": (0.0, 0.0)},
    )
    target = EventTermCfg(
        func=mdp.reset_root_state_uniform,
        mode="reset",
        params={
            "pose_range": {"x": (-0.1, 0.1), "y": (-0.25, 0.25)},
            "velocity_range": {},
            "asset_cfg": SceneEntityCfg("target"),
        },
        min_step_count_between_reset=3,
    )
    weight = EventTermCfg(
        func=mdp.randomize_rigid_body_mass,
        mode="startup",
        params={
            "asset_cfg": SceneEntityCfg("target"),
            "mass_distribution_params": (0.5, 2.0),
            "operation": "scale",
        },
    )
    gains = EventTermCfg(
        func=mdp.randomize_actuator_gains,
        mode="reset",
        params={
            "asset_cfg": SceneEntityCfg("robot"),
            "stiffness_distribution_params": (0.5, 2.0),
            "operation": "scale",
        },
    )
    push = EventTermCfg(
        func=mdp.push_by_setting_velocity,
        mode="interval",
        interval_range_s=(0.1, 0.2),
        params={"velocity_range": {"x": (-0.1, 0.1)}, "asset_cfg": SceneEntityCfg("target")},
    )


def closeness(env):
    """(N,): higher is nearer."""
    return -torch.linalg.vector_norm(target_from_hand(env), dim=-1)


def is_reached(env):
    """(N,) bool: the hand is at the cube."""
    return closeness(env) > -RADIUS_M


@configclass
class RewardsCfg:
    closeness = RewardTermCfg(func=closeness, weight=1.0)


@configclass
class TerminationsCfg:
    time_out = TerminationTermCfg(func=mdp.time_out, time_out=True)
    reached = TerminationTermCfg(func=is_reached)


@configclass
class ReachEnvCfg(ManagerBasedRLEnvCfg):
    scene: SceneCfg = SceneCfg(num_envs=4, env_spacing=2.0)
    actions: ActionsCfg = ActionsCfg()
    observations: ObservationsCfg = ObservationsCfg()
    events: EventsCfg = EventsCfg()
    rewards: RewardsCfg = RewardsCfg()
    terminations: TerminationsCfg = TerminationsCfg()

    def __post_init__(self):
        self.decimation = 4
        self.episode_length_s = 1.0
        self.sim.dt = 0.0125


@configclass
class CommandsCfg:
    """A place for the hand, drawn anew within an episode; its markers, never shown, are remote."""

    place = mdp.UniformPoseCommandCfg(
        asset_name="robot",
        body_name="fr3_link7",
        resampling_time_range=(0.1, 0.2),
        ranges=mdp.UniformPoseCommandCfg.Ranges(
            pos_x=(0.4, 0.6),
            pos_y=(-0.2, 0.2),
            pos_z=(0.2, 0.4),
            roll=(0.0, 0.0),
            pitch=(0.0, 0.0),
            yaw=(-1.0, 1.0),
        ),
        goal_pose_visualizer_cfg=None,
        current_pose_visualizer_cfg=None,
    )


@configclass
class CommandedReachEnvCfg(ReachEnvCfg):
    """The same with a command, which is observed and would be drawn anew within an episode."""

    commands: CommandsCfg = CommandsCfg()

    def __post_init__(self):
        super().__post_init__()
        self.observations.policy.place = ObservationTermCfg(
            func=mdp.generated_commands, params={"command_name": "place"}
        )


@configclass
class DelayedReachEnvCfg(CommandedReachEnvCfg):
    """The same with an arm whose commands arrive late: what is on its way appears with a step."""

    def __post_init__(self):
        super().__post_init__()
        self.scene.robot.actuators["arm"] = DelayedPDActuatorCfg(
            joint_names_expr=["fr3_joint.*"],
            stiffness=400.0,
            damping=80.0,
            armature=0.3,
            min_delay=6,
            max_delay=6,
        )


@configclass
class RemoteReachEnvCfg(ReachEnvCfg):
    """The same with Isaac Lab's own ground plane, which would be fetched."""

    def __post_init__(self):
        super().__post_init__()
        self.scene.ground = RigidObjectCfg(
            prim_path="/World/ground", spawn=sim_utils.GroundPlaneCfg()
        )
