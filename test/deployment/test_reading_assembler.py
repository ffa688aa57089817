"""The reading assembler gives a policy all fields that it was trained on, and in that order."""

from __future__ import annotations

import numpy as np
import torch
from deployment_fakes import ARM, FINGER, MS, ROBOT, home, make_contract

from grpo_ros.contract import ObservationField, Source
from grpo_ros.deployment.observation_buffer import ObservationBuffer, Reading
from grpo_ros.deployment.reading_assembler import ReadingAssembler


def test_state_and_images_come_in_the_contracts_order_type_and_shape() -> None:
    camera = Source("camera", ("wrist",), encoding="rgb8")
    image_field = ObservationField("wrist_image", (4, 6, 3), camera, "uint8")
    first, *rest = make_contract().observation
    contract = make_contract(observation=(first, image_field, *rest))
    buffer = ObservationBuffer(contract, ROBOT)
    buffer.put_joint_state(MS, (*ARM, FINGER), home(), np.zeros(8))
    buffer.put_pose(MS, "cube", "base", (0.5, 0.1, 0.02), (0.0, 0.0, 0.6, 0.8))
    image = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    buffer.put_image(MS, "wrist", image)
    reading = buffer.read(MS)
    assert isinstance(reading, Reading)
    obs = ReadingAssembler(contract, ROBOT)(reading, {}, torch.full((1, 8), 0.25))
    assert list(obs) == ["joints", "wrist_image", "speed", "cube", "last"]
    assert np.array_equal(obs["wrist_image"], image[None])
    assert np.array_equal(obs["joints"], home()[None, :7].astype(np.float32))
    assert obs["last"].dtype == np.float32 and (obs["last"] == 0.25).all()
    assert obs["cube"].shape == (1, 3) and obs["speed"].shape == (1, 1)
