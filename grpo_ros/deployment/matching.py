"""Whether a robot is the one that a policy was trained for, and if not, where they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from grpo_ros.contract import TASK_SETTINGS, Contract
from grpo_ros.errors import ContractError
from grpo_ros.robots.robot import DESCRIPTION_FILE, Robot, load_robot


def trained_robot(contract: Contract) -> Robot:
    """Return the robot that a policy was trained on: from its folder, or of this package by name.

    Raises:
        RobotError: neither is there, or a file of it is wrong.
    """
    settings = contract.provenance.get(TASK_SETTINGS)
    named = settings.get("robot") if isinstance(settings, Mapping) else None
    if isinstance(named, str) and (Path(named) / DESCRIPTION_FILE).is_file():
        return load_robot(named)
    return load_robot(contract.embodiment)


def check_match(contract: Contract, robot: Robot) -> None:
    """Raise ContractError with every difference between a contract and a robot.

    Raises:
        ContractError: another robot, another description of it, other joints or other limits.
    """
    differences = []
    if contract.embodiment != robot.name:
        differences.append(f"robot is '{robot.name}', not '{contract.embodiment}'")
    if contract.joint_names != robot.joint_names:
        differences.append(
            f"joints are {list(robot.joint_names)}, not {list(contract.joint_names)}"
        )
    else:
        differences += _limit_differences(contract, robot)
    if contract.robot_sha256 != robot.sha256:
        differences.append(
            f"description has SHA-256 {robot.sha256[:16]}..., not {contract.robot_sha256[:16]}..."
        )
    if differences:
        raise ContractError(
            f"policy for '{contract.embodiment}' does not match the robot: "
            + "; ".join(differences),
            expected="the robot description that the policy was trained with",
            remedy="use that description, or train and export again with this one",
        )


def _limit_differences(contract: Contract, robot: Robot) -> list[str]:
    differences = []
    for wanted, found in zip(contract.limits, robot.limits, strict=True):
        for field in dataclasses.fields(wanted):
            ours, theirs = getattr(found, field.name), getattr(wanted, field.name)
            if ours != theirs:
                differences.append(
                    f"{field.name} of joint '{wanted.name}' is {ours}, not {theirs}"
                )
    return differences


def contract_differences(task: Contract, policy: Contract) -> list[str]:
    """Return what differs in what flows between a task's contract and a policy's, by key.

    A policy may observe fewer fields than the task offers: those that it has are compared, by
    name. Provenance, randomisation and statistics say where a policy comes from, not what flows.
    """
    differences = []
    for field in dataclasses.fields(Contract):
        if field.name in ("provenance", "randomisation"):
            continue
        one, two = getattr(task, field.name), getattr(policy, field.name)
        if field.name == "observation":
            differences += _observation_differences(task, policy)
        elif one != two:
            differences.append(f"{field.name} is {_short(one)}, not {_short(two)}")
    return differences


def _observation_differences(task: Contract, policy: Contract) -> list[str]:
    differences = []
    offered = {field.name: field for field in task.observation}
    for wanted in policy.observation:
        if wanted.name not in offered:
            differences.append(
                f"observation '{wanted.name}' is not offered ({', '.join(offered)} are)"
            )
            continue
        for part in dataclasses.fields(wanted):
            one, two = getattr(offered[wanted.name], part.name), getattr(wanted, part.name)
            if part.name != "statistics" and one != two:
                differences.append(
                    f"{part.name} of observation '{wanted.name}' is {_short(one)}, "
                    f"not {_short(two)}"
                )
    return differences


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
