"""Observed images: the same state gives the same pixels, however and beside whatever drawn."""

import threading

import numpy as np
import pytest
import torch

from grpo_ros.errors import SimulatorError
from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco import renderer as mujoco_renderer
from grpo_ros.simulators.mujoco.observed_images import ObservedImages
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.tasks.reach import Reach, ReachConfig

pytestmark = pytest.mark.skipif(
    bool(mujoco_renderer.rendering_problem()), reason="nothing renders here"
)
N = 9


@pytest.fixture(scope="module")
def scenes():
    """A simulator, and positions of its robot and marker in N scenes."""
    task = Reach(ReachConfig(cameras=("top", "overview")))
    simulator = MujocoSimulator(task, N, MujocoConfig(num_threads=1))
    simulator.reset(task.sample([Key(2, 0, group) for group in range(N)]))
    layout = simulator.physics._layout
    qpos = simulator.rows.physics[:, layout.qpos].numpy()
    mocap = simulator.rows.placed[:, layout.mocap_rows].numpy()
    yield simulator, qpos, mocap
    simulator.close()


def _drawn_alone(model, qpos, mocap, camera):
    """Return every image from a context that has drawn nothing else."""
    images = []
    for row in range(len(qpos)):
        renderer = mujoco_renderer.MujocoRenderer(model, 64, 64, mujoco_renderer.OBSERVATION)
        images.append(renderer.render(qpos[row : row + 1], mocap[row : row + 1], camera)[0])
        renderer.close()
    return np.stack(images)


@pytest.mark.parametrize("num_threads", [0, 1, 2, 3])
def test_pixels_depend_on_neither_batch_nor_thread(scenes, num_threads):
    simulator, qpos, mocap = scenes
    expected = {
        camera: _drawn_alone(simulator.model, qpos, mocap, camera)
        for camera in ("top", "overview")
    }
    observed = ObservedImages(simulator.model, 64, 64, num_threads)
    for order in (np.arange(N), np.array([4, 4, 0, 8, 4]), np.array([7]), np.arange(N)[::-1]):
        for camera, images in expected.items():
            found = observed.render(qpos[order], mocap[order], camera)
            np.testing.assert_array_equal(found, images[order])
    observed.close()


def test_a_scene_that_changes_in_the_least_is_drawn_anew(scenes):
    simulator, qpos, mocap = scenes
    observed = ObservedImages(simulator.model, 64, 64)
    first = observed.render(qpos, mocap, "top")
    moved = mocap.copy()
    moved[3, 0, 1] += 0.01
    second = observed.render(qpos, moved, "top")
    observed.close()
    changed = (first != second).any(axis=(1, 2, 3))
    assert changed.tolist() == [row == 3 for row in range(N)]


def test_equal_scenes_are_drawn_once_and_those_of_the_last_call_not_again(scenes, monkeypatch):
    simulator, qpos, mocap = scenes
    drawn = []
    original = mujoco_renderer.MujocoRenderer.render

    def counting(self, qpos, mocap=None, camera="overview"):
        drawn.append(len(qpos))
        return original(self, qpos, mocap, camera)

    monkeypatch.setattr(mujoco_renderer.MujocoRenderer, "render", counting)
    observed = ObservedImages(simulator.model, 64, 64, 2)
    group = np.array([0, 0, 0, 1, 1, 1])
    observed.render(qpos[group], mocap[group], "top")
    assert sum(drawn) == 2
    observed.render(qpos[[1, 2]], mocap[[1, 2]], "top")
    assert sum(drawn) == 3
    observed.close()


def test_an_image_that_was_given_may_be_written_to(scenes):
    simulator, qpos, mocap = scenes
    observed = ObservedImages(simulator.model, 64, 64)
    first = observed.render(qpos, mocap, "top")
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(observed.render(qpos, mocap, "top"), kept)
    observed.close()
    with pytest.raises(SimulatorError, match="closed"):
        observed.render(qpos, mocap, "top")


def test_films_keep_their_shadows_and_the_model_its_settings(scenes):
    _, qpos, _ = scenes
    task = Reach()  # its camera is `top`: `overview` is drawn as films are
    simulator = MujocoSimulator(task, 2)
    sampled = task.sample([Key(2, 0, 0), Key(2, 0, 1)])
    quality = simulator.model.vis.quality
    settings = quality.shadowsize, quality.numslices, simulator.model.vis.global_.offwidth
    simulator.reset(sampled)
    film = simulator.render(camera="overview")
    assert settings == (
        quality.shadowsize, quality.numslices, simulator.model.vis.global_.offwidth
    )  # fmt: skip
    assert film.shape == (2, 180, 240, 3)
    plain = mujoco_renderer.MujocoRenderer(simulator.model, 240, 180, mujoco_renderer.OBSERVATION)
    without = plain.render(qpos[:2], None, "overview")
    plain.close()
    darker = film.numpy().astype(int).sum(-1) < 0.7 * without.astype(int).sum(-1)
    assert darker.mean() > 0.01, "no shadow on the table"
    simulator.close()


def test_a_snapshot_brings_back_images_in_mid_episode():
    task = Reach()
    simulator = MujocoSimulator(task, 4)
    keys = [Key(3, 0, group) for group in range(4)]
    simulator.reset(task.sample(keys), None, keys)
    chunks = 0.5 * torch.randn(3, 4, 8, 4, generator=torch.Generator().manual_seed(0))
    before = simulator.step(chunks[0]).obs["top_image"]
    middle = simulator.snapshot()
    after = simulator.step(chunks[1]).obs["top_image"]
    order = [2, 0, 3, 1]
    assert torch.equal(simulator.restore(middle, order)["top_image"], before[order])
    assert torch.equal(simulator.step(chunks[1][order]).obs["top_image"], after[order])
    assert not torch.equal(before, after)
    simulator.close()


def test_a_simulator_may_be_used_from_another_thread(scenes):
    simulator, _, _ = scenes
    here, there = simulator.render(camera="top"), []
    thread = threading.Thread(target=lambda: there.append(simulator.render([2, 1], "top")))
    thread.start()
    thread.join(timeout=30)
    assert torch.equal(there[0], here[[2, 1]])
