"""Films, and the renderer behind them; skipped where nothing can be rendered."""

import io

import numpy as np
import pytest
import torch

from grpo_ros.errors import SimulatorError
from grpo_ros.randomness import Key
from grpo_ros.report import film
from grpo_ros.simulators.mujoco import renderer as mujoco_renderer
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.registry import make_task

needs_renderer = pytest.mark.skipif(
    bool(mujoco_renderer.rendering_problem()), reason="nothing renders here"
)


@pytest.fixture
def simulator():
    """Two environments of pick_place."""
    one = MujocoSimulator(make_task("pick_place"), 2)
    yield one
    one.close()


def _still(simulator):
    shape = (simulator.num_envs, simulator.contract.chunk_size, simulator.contract.action_size)
    return lambda obs: torch.zeros(shape)


@needs_renderer
def test_pictures_follow_the_scene(simulator):
    task = simulator.task
    simulator.reset(task.sample([Key(0), Key(1)]))
    first = simulator.render().numpy()
    assert first.shape == (2, 180, 240, 3) and first.dtype == np.uint8
    assert (simulator.render().numpy() == first).all()
    assert (first[0] != first[1]).mean() > 0.01
    colours = first[0].reshape(-1, 3).astype(int)
    red = colours[:, 0] - colours[:, 1] > 50
    green = colours[:, 1] - colours[:, 0] > 50
    assert red.any() and green.any(), "cube or goal is not in the picture"


@needs_renderer
def test_a_closed_renderer_refuses(simulator):
    renderer = mujoco_renderer.MujocoRenderer(simulator.model, 32, 24)
    renderer.close()
    renderer.close()
    with pytest.raises(SimulatorError, match="closed"):
        renderer.render(simulator.model.qpos0[None])


@needs_renderer
def test_a_film_shows_all_episodes_to_their_end_with_the_verdict(simulator, tmp_path):
    from PIL import Image

    path = tmp_path / "films" / "before.webp"
    assert film.film_episodes(simulator, _still(simulator), path) == ""
    picture = Image.open(io.BytesIO(path.read_bytes()))
    assert picture.size == (480, 180)
    stride = round(simulator.contract.control_rate_hz / film.FRAME_RATE_HZ)
    assert picture.n_frames > 1
    assert picture.n_frames <= 1 + simulator.task.horizon // stride + film.HOLD_FRAMES
    picture.seek(picture.n_frames - 1)
    edge = np.asarray(picture.convert("RGB"))[1, 100].astype(int)
    assert np.abs(edge - film.FAILURE).max() < 40, "an arm that stands still must fail"


def test_without_a_renderer_the_reason_and_remedy_are_told(simulator, tmp_path, monkeypatch):
    monkeypatch.setattr(mujoco_renderer, "rendering_backend", lambda: "")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    path = tmp_path / "x.webp"
    problem = film.film_episodes(simulator, _still(simulator), path)
    assert "libosmesa6" in problem and not path.exists()


def test_a_chosen_backend_that_fails_is_named(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(mujoco_renderer, "rendering_backend", lambda: "")
    assert "MUJOCO_GL=egl does not work" in mujoco_renderer.rendering_problem()
