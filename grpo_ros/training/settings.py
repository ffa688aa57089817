"""The settings of a training run, as one typed tree."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from grpo_ros import typed
from grpo_ros.algorithms.behaviour_cloning import BehaviourCloningConfig
from grpo_ros.algorithms.grpo import GrpoConfig
from grpo_ros.algorithms.mixing import HybridConfig
from grpo_ros.algorithms.ppo import PpoConfig
from grpo_ros.errors import ConfigurationError
from grpo_ros.policies.flow import FlowConfig
from grpo_ros.policies.gaussian import GaussianConfig
from grpo_ros.policies.gr00t.config import Gr00tConfig
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig
from grpo_ros.simulators.mujoco.simulator import MujocoConfig
from grpo_ros.tasks import environment
from grpo_ros.tasks.environment import EnvironmentConfig
from grpo_ros.tasks.registry import TASKS
from grpo_ros.training.failures.config import FailureConfig
from grpo_ros.training.starts.config import StartConfig


@dataclasses.dataclass(frozen=True)
class CollectionConfig:
    """How much is collected, and from how many states."""

    num_groups: int = typed.setting(
        32, "Initial states per iteration (M); PPO has one for each of the M G rollouts", minimum=1
    )
    group_size: int = typed.setting(8, "Rollouts from each state (G)", minimum=1)
    antithetic: bool = typed.setting(
        True,
        "Give members 2i and 2i + 1 of a group opposite noise; a spread that is learned then gets "
        "1 - 2 / group_size of its gradient, in groups of two none",
    )
    env_steps: int = typed.setting(
        900_000, "Budget: control steps of all environments together", minimum=0
    )
    averaging: float = typed.setting(
        0.9,
        "Decay per iteration of the average that is evaluated and deployed; 0 = last iterate",
        minimum=0.0,
        maximum=0.999,
    )


@dataclasses.dataclass(frozen=True)
class DemonstrationConfig:
    """Demonstrations that the policy is cloned from first."""

    path: str = typed.setting(
        "",
        "Folder of demonstrations, of `grpo-ros demonstrate` or a LeRobotDataset; all are cloned; "
        "empty: the task's script is recorded",
    )
    episodes: int = typed.setting(
        20,
        "Successful episodes recorded; 0: learn from scratch; without effect if a path is given",
        minimum=0,
    )
    action_noise: float = typed.setting(
        0.1, "Standard deviation of noise on executed actions; labels stay clean", minimum=0.0
    )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How success is measured."""

    every_iterations: int = typed.setting(10, "Iterations between curve points", minimum=1)
    episodes: int = typed.setting(256, "Initial states of a curve point", minimum=1)
    final_episodes: int = typed.setting(1000, "Held-out initial states at the end", minimum=1)
    target: float = typed.setting(
        1.0, "Stop once a curve point reaches this success", minimum=0.0, maximum=1.0
    )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """What is kept of the learner's state."""

    every_iterations: int = typed.setting(10, "Iterations between checkpoints", minimum=1)
    keep_last: int = typed.setting(3, "Checkpoints kept", minimum=1)
    keep_best: bool = typed.setting(
        True, "Also keep, as checkpoints/best, the one of the highest success on the curve"
    )


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """How a policy is written."""

    one_file_mb: float = typed.setting(
        48.0,
        "float32 weights up to which policy.onnx holds them; a GR00T with more becomes two graphs "
        "with files of weights beside them",
        unit="MB",
        minimum=0.0,
        maximum=60.0,
    )


@dataclasses.dataclass(frozen=True)
class BridgeConfig:
    """Where the simulator lives; results do not depend on it."""

    placement: Literal["composed", "separate"] = typed.setting(
        "composed", "composed: in the learner's process; separate: in one of its own"
    )
    python: str = typed.setting(
        "", "Interpreter of the simulator's own Python environment; empty: the learner's"
    )
    attach: str = typed.setting(
        "", "Name of a running batch_bridge node to use; empty: the learner starts a process"
    )
    transport: Literal["shared_memory", "messages"] = typed.setting(
        "shared_memory", "To an attached node: shared_memory on one host, messages between two"
    )
    timeout_s: float = typed.setting(60.0, "Deadline of every call", unit="s", minimum=0.01)
    start_timeout_s: float = typed.setting(
        180.0, "Deadline until a bridge is there and has made its simulator", unit="s", minimum=0.1
    )
    max_restarts: int = typed.setting(
        10, "Losses of the bridge in a row after which training fails", minimum=0
    )


@dataclasses.dataclass(frozen=True)
class RanksConfig:
    """How the processes of one run go together, where torchrun started several."""

    parameters: Literal["whole", "sharded"] = typed.setting(
        "whole", "What learns of a policy, on each rank: all of it (DDP), or a part (FSDP2; gr00t)"
    )
    timeout_s: float = typed.setting(
        1800.0,
        "Longest that a rank waits for others, e.g. for an export",
        unit="s",
        minimum=1.0,
    )


@dataclasses.dataclass(frozen=True)
class CommonConfig:
    """What every training run has: the choices, and the settings of all but the tasks."""

    task: str = typed.setting("pick_place", "What is to be done")
    algorithm: str = typed.setting("grpo", "How it is learned")
    policy: str = typed.setting("gaussian", "What decides")
    simulator: str = typed.setting("mujoco", "Where it happens")
    difficulty: str = typed.setting("", "easy | medium | hard; empty: the task's plain preset")
    seed: int = typed.setting(0, "Seed of everything random", minimum=0, maximum=2**31 - 1)
    resume: str = typed.setting("auto", "auto | never | a run directory")
    output: str = typed.setting("runs", "Folder that run directories are made in")
    film: bool = typed.setting(True, "Film episodes before and after, where a renderer works")
    collection: CollectionConfig = typed.setting(factory=CollectionConfig)
    starts: StartConfig = typed.setting(factory=StartConfig)
    demonstrations: DemonstrationConfig = typed.setting(factory=DemonstrationConfig)
    behaviour_cloning: BehaviourCloningConfig = typed.setting(factory=BehaviourCloningConfig)
    evaluation: EvaluationConfig = typed.setting(factory=EvaluationConfig)
    checkpoint: CheckpointConfig = typed.setting(factory=CheckpointConfig)
    failures: FailureConfig = typed.setting(factory=FailureConfig)
    export: ExportConfig = typed.setting(factory=ExportConfig)
    grpo: GrpoConfig = typed.setting(factory=GrpoConfig)
    ppo: PpoConfig = typed.setting(factory=PpoConfig)
    hybrid: HybridConfig = typed.setting(factory=HybridConfig)
    gaussian: GaussianConfig = typed.setting(factory=GaussianConfig)
    flow: FlowConfig = typed.setting(factory=FlowConfig)
    gr00t: Gr00tConfig = typed.setting(factory=Gr00tConfig)
    mujoco: MujocoConfig = typed.setting(factory=MujocoConfig)
    isaaclab: IsaacLabConfig = typed.setting(factory=IsaacLabConfig)
    environment: EnvironmentConfig = typed.setting(factory=EnvironmentConfig)
    bridge: BridgeConfig = typed.setting(factory=BridgeConfig)
    ranks: RanksConfig = typed.setting(factory=RanksConfig)


def _task_sections() -> list[tuple[str, type, Any]]:
    """Return a section for each task, by its name; raise ConfigurationError where it is taken."""
    taken = {field.name for field in dataclasses.fields(CommonConfig)}
    for name in TASKS:
        if name in taken or not name.isidentifier():
            raise ConfigurationError(
                f"a task is called '{name}'", expected=f"an identifier, none of {sorted(taken)}"
            )
    configs: dict[str, Any] = {name: task.Config for name, task in TASKS.items()}
    return [(name, config, typed.setting(factory=config)) for name, config in configs.items()]


if TYPE_CHECKING:

    class TrainConfig(CommonConfig):
        """A training run: the choices, and a section for each that can be chosen."""
else:
    TrainConfig = dataclasses.make_dataclass(
        "TrainConfig",
        _task_sections(),
        bases=(CommonConfig,),
        frozen=True,
        module=__name__,
        namespace={
            "__doc__": "A training run: the choices, and a section for each that can be chosen."
        },
    )

SECTIONS_BY_SELECTOR = {
    "task": tuple(TASKS),
    "algorithm": ("grpo", "ppo", "hybrid"),
    "policy": ("gaussian", "flow", "gr00t"),
    "simulator": ("mujoco", "isaaclab"),
}
"""Selector -> the sections it chooses among."""


def section_name(selector: str, value: str) -> str | None:
    """Return the section that a selector's value chooses; None where there is none."""
    if selector == "task" and value.startswith(environment.PREFIX):
        return environment.SECTION
    return value if value in SECTIONS_BY_SELECTOR[selector] else None


SECTIONS_USED_TOO = {"hybrid": ("grpo", "ppo")}
"""Chosen section -> others of its selector that it is made of."""


WITHOUT_EFFECT_ON_RESULTS = (
    "resume",
    "output",
    "film",
    "checkpoint",
    "failures",
    "bridge",
    "ranks",
    "mujoco.num_threads",
    "demonstrations.path",
)
"""Keys that the config hash leaves out. Of demonstrations their data counts, not their place."""
