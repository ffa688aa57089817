"""Cameras: what tasks declare of them, and what simulators give."""

import numpy as np
import pytest
import torch

from grpo_ros.errors import ConfigurationError, ContractError
from grpo_ros.policies.gaussian import GaussianConfig
from grpo_ros.policies.registry import make_policy
from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco import renderer as mujoco_renderer
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.camera import Camera
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig

SEEING = PickPlaceConfig(cameras=("overview",), image_size=(64, 48))


def test_a_camera_looks_along_its_axes_at_its_target():
    camera = Camera("c", (1.0, -2.0, 1.5), (0.2, 0.3, 0.1))
    axes = camera.axes
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    towards = np.array(camera.target) - np.array(camera.eye)
    np.testing.assert_allclose(-axes[:, 2] * np.linalg.norm(towards), towards, atol=1e-12)
    assert axes[2, 0] == 0.0 and axes[2, 1] > 0.0, "the horizon is level, up is up"


def test_an_observed_camera_stands_in_the_contract():
    field = PickPlace(SEEING).contract().field("overview_image")
    assert field.shape == (48, 64, 3) and field.dtype == "uint8"
    assert (field.source.kind, field.source.names, field.source.encoding) == (
        "camera",
        ("overview",),
        "rgb8",
    )


def test_an_unknown_camera_is_named_with_the_nearest():
    task = PickPlace(PickPlaceConfig(cameras=("overvew",)))
    with pytest.raises(ConfigurationError, match="did you mean 'overview'"):
        task.contract()


def test_a_policy_on_states_refuses_images():
    with pytest.raises(ContractError, match="overview_image.*not float32"):
        make_policy(GaussianConfig(), PickPlace(SEEING).contract(), torch.Generator())


@pytest.mark.skipif(bool(mujoco_renderer.rendering_problem()), reason="nothing renders here")
def test_mujoco_observes_what_the_camera_sees_and_a_group_sees_the_same():
    simulator = MujocoSimulator(PickPlace(SEEING), 3)
    assert simulator.capabilities.cameras == ("overview",)
    keys = [Key(1, 0, group) for group in range(3)]
    obs = simulator.reset(simulator.task.sample(keys), None, keys)
    image = obs["overview_image"]
    assert image.shape == (3, 48, 64, 3) and image.dtype == torch.uint8
    assert not torch.equal(image[0], image[1])
    moved = simulator.step(torch.ones(3, 4, 5)).obs["overview_image"]
    assert not torch.equal(moved[0], image[0])
    group = simulator.restore(simulator.snapshot([1]), [0] * 3)["overview_image"]
    assert torch.equal(group, moved[1:2].expand_as(group))
    simulator.close()
