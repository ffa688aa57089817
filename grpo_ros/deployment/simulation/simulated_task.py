"""The simulated task that a policy was trained for, and its outcomes without ROS."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grpo_ros import configuration, typed
from grpo_ros.contract import TASK_SETTINGS, Contract, ObservationField
from grpo_ros.deployment.matching import contract_differences
from grpo_ros.errors import ConfigurationError, ContractError, nearest
from grpo_ros.export.policy_file import PolicyFile
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Observation, Simulator
from grpo_ros.simulators.batched import BatchedSimulator
from grpo_ros.simulators.registry import SIMULATORS, make_simulator
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.configured_task import ConfiguredTask
from grpo_ros.tasks.environment import EnvironmentConfig, EnvironmentTask
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.evaluation import Evaluation, evaluate
from grpo_ros.training.run_directory import CONFIG_FILE
from grpo_ros.training.settings import TrainConfig

FROM_CONTRACT = ("horizon", "control_rate_hz", "chunk_size", "motion")
"""Settings of a task that its contract repeats."""
NUM_ENVS = {"mujoco": 64, "isaaclab": 192}
"""Environments of an evaluation; a step of Isaac Lab costs nearly as much for fewer."""


def task_of(contract: Contract, run_folder: Path | None = None) -> Task:
    """Return the task of a policy, without randomisation.

    It offers what the policy observes, and may offer more.

    Args:
        contract: names the task, and has the settings that it was trained with.
        run_folder: where the policy's run left its configuration, if it did.

    Raises:
        ConfigurationError: this version's task has no setting of a name that the contract has.
        ContractError: this version's task has another contract, or lacks a field that the policy
            observes; names every difference.
    """
    settings = _task_settings(contract, run_folder)
    known = {field.name for field in dataclasses.fields(settings)}
    tree = typed.encode(settings)
    tree.update((name, getattr(contract, name)) for name in FROM_CONTRACT if name in known)
    if "action" in known:
        tree.update(("action", field.kind) for field in contract.action if field.kind != "gripper")
    if "randomisation" in known:
        tree["randomisation"]["enabled"] = False
    task = make_task(contract.task, typed.decode(type(settings), tree, contract.task))
    if isinstance(task, EnvironmentTask):  # its contract is known once its environment is built
        return task
    if isinstance(task, ConfiguredTask) and camera_fields(contract):
        task = _with_cameras(task, contract)
    _check_offers(task.contract(), contract)
    return task


def camera_fields(contract: Contract) -> list[ObservationField]:
    """Return the observed images."""
    return [field for field in contract.observation if field.source.kind == "camera"]


def _with_cameras(task: ConfiguredTask, contract: Contract) -> Task:
    """Return the task with the cameras that a policy sees, and their size, as far as it has any.

    Its own cameras stay.
    """
    seen = camera_fields(contract)
    has = {view.name for view in task.views()}
    cameras = [name for field in seen for name in field.source.names if name in has]
    sizes = {(field.shape[1], field.shape[0]) for field in seen if len(field.shape) == 3}
    config = dataclasses.replace(
        task.config,
        cameras=tuple(dict.fromkeys([*task.config.cameras, *cameras])),
        image_size=sizes.pop() if len(sizes) == 1 else task.config.image_size,
    )
    return make_task(contract.task, config)


def _check_offers(found: Contract, contract: Contract) -> None:
    """Raise ContractError unless a task of the contract `found` is the policy's."""
    differences = contract_differences(found, contract)
    if differences:
        raise ContractError(
            f"task '{contract.task}' of this version is not the policy's: "
            + "; ".join(differences),
            remedy="train and export again, or keep the run's configuration beside the policy",
        )


def in_process_outcomes(
    policy: PolicyFile,
    keys: Sequence[Key],
    run_folder: Path | None = None,
    simulator: str = "",
    blank: Sequence[str] = (),
) -> Evaluation:
    """Return the outcomes of a policy file without ROS: what lock step has to reproduce.

    Args:
        policy: with its contract.
        keys: of the initial states.
        run_folder: where the policy's run left its configuration, if it did.
        simulator: another one than it was trained in.
        blank: observed fields that are all zeros to the policy; shows what it makes of them.

    Raises:
        ConfigurationError: there is no such simulator.
        ContractError: the policy does not observe a field that is to be blank.

    The policy is given the fields that it observes, and no others. Rows are inferred one by one,
    as on a robot, since ONNX Runtime does not promise that a row of a batch equals the same row
    alone.
    """
    if simulator and simulator not in SIMULATORS:
        raise ConfigurationError(
            f"no simulator '{simulator}'",
            expected=" | ".join(sorted(SIMULATORS)),
            remedy=nearest(simulator, SIMULATORS),
        )
    names = [field.name for field in policy.contract.observation]
    for name in blank:
        if name not in names:
            raise ContractError(
                f"no observed field '{name}' to blank", remedy=nearest(name, names)
            )

    def decide(obs: Observation) -> Tensor:
        arrays = {name: obs[name].numpy() for name in names}
        arrays |= {name: np.zeros_like(arrays[name]) for name in blank}
        rows = range(len(next(iter(arrays.values()))))
        chunks = [
            policy.infer({name: value[row : row + 1] for name, value in arrays.items()})
            for row in rows
        ]
        return torch.from_numpy(np.concatenate(chunks))

    task = task_of(policy.contract, run_folder)
    config = run_config(policy.contract, run_folder)
    if simulator:
        config = dataclasses.replace(config, simulator=simulator)
    made = make_simulated(config, task, min(NUM_ENVS[config.simulator], max(1, len(keys))))
    try:
        _check_offers(made.contract, policy.contract)
        if isinstance(made, BatchedSimulator):
            made.draws_images = bool(camera_fields(policy.contract))
        return evaluate(made, decide, list(keys))
    finally:
        made.close()


def _task_settings(contract: Contract, run_folder: Path | None) -> Any:
    """Return a task's settings as the contract has them, else a run's folder, else the presets.

    Those of an environment name code, which is not taken from a policy file.
    """
    settings = configuration.section(run_config(contract, run_folder), "task")
    kept = contract.provenance.get(TASK_SETTINGS)
    if kept is None or isinstance(settings, EnvironmentConfig):
        return settings
    path = f"task settings in the contract of the policy of '{contract.task}'"
    return typed.decode(type(settings), kept, path)


def run_config(contract: Contract, run_folder: Path | None = None) -> TrainConfig:
    """Return the configuration of a policy's run where it left one, else the presets'.

    Raises:
        ConfigurationError: no task of that name, or a setting that this version does not know.
    """
    recorded = None if run_folder is None else run_folder / CONFIG_FILE
    if recorded is not None and recorded.is_file():
        config = configuration.merge(TrainConfig, [configuration.read_layer(recorded)])
        if config.task == contract.task:
            return config
    simulator = contract.provenance.get("simulator")
    more = [f"simulator={simulator}"] if simulator in SIMULATORS else []
    return configuration.load_config([f"task={contract.task}", *more])


def make_simulated(config: TrainConfig, task: Task, num_envs: int) -> Simulator:
    """Return a run's simulator with N environments, of MuJoCo with one physics thread."""
    settings = configuration.section(config, "simulator")
    if config.simulator == "mujoco":
        settings = dataclasses.replace(settings, num_threads=1)
    return make_simulator(config.simulator, task, num_envs, settings)
