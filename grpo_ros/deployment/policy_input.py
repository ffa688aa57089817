"""What a policy is given: the observation that was assembled, images, noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grpo_ros.contract import Contract
from grpo_ros.deployment.inputs.observation_buffer import Reading
from grpo_ros.deployment.training_range import TrainingRange
from grpo_ros.export.metadata import NOISE_INPUT
from grpo_ros.export.noise_source import NoiseSource
from grpo_ros.observations import ObservationAssembler
from grpo_ros.policies.features import field_shape
from grpo_ros.robots.robot import Robot

Arrays = dict[str, npt.NDArray[Any]]


class PolicyInput:
    """Makes the input of each inference of a policy.

    Args:
        contract: of the policy.
        robot: that is observed.
        speed: share of the trained speed: in stretched time things move slower than it learned.
        range_margin: share of its span by which a component may leave what training saw.
    """

    def __init__(
        self, contract: Contract, robot: Robot, speed: float, range_margin: float
    ) -> None:
        self.contract, self.speed = contract, speed
        self.assemble = ObservationAssembler(contract, robot, has_images=True)
        self.range = TrainingRange(contract, range_margin)
        self.noise = NoiseSource(contract, 0) if contract.noise_shape else None
        self.outside: tuple[str, ...] = ()
        """Fields of the last input that lie outside what training saw."""
        self.run = -1
        """Number of the present run, which with that of the inference decides the noise."""
        self._num_inferences = 0

    def begin_run(self) -> None:
        """Begin the next run."""
        self.run, self._num_inferences = self.run + 1, 0
        self.outside = ()
        self.range.counts.clear()

    def zeros(self) -> Arrays:
        """Return an input of zeros, one row."""
        zeros: Arrays = {
            field.name: np.zeros((1, *field_shape(field)), dtype=field.dtype)
            for field in self.contract.observation
        }
        if self.noise is not None:
            zeros[NOISE_INPUT] = self.noise.draw(0, 0)
        return zeros

    def of(self, reading: Reading, state: Mapping[str, Tensor], last_action: Tensor) -> Arrays:
        """Return the input (1, ...) of the next inference.

        Args:
            reading: what was observed.
            state: of the controller. last_action: (1, A) executed last.
        """
        scene = reading.scene
        if self.speed != 1.0:
            velocity = scene.joint_velocity / self.speed
            scene = dataclasses.replace(scene, joint_velocity=velocity)
        with torch.no_grad():
            obs = self.assemble(scene, state, last_action)
        arrays: Arrays = {name: value.numpy() for name, value in obs.items()}
        self.outside = self.range.judge(arrays)
        if self.noise is not None:
            arrays[NOISE_INPUT] = self.noise.draw(self.run, self._num_inferences)
        self._num_inferences += 1
        return {**arrays, **reading.images}
