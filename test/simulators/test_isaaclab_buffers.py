"""Isaac Lab's buffers of past commands and readings belong to a snapshot, wherever they stand."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("isaaclab", reason="Isaac Lab is not installed: make isaaclab")

from grpo_ros.simulators.isaaclab.environment_config import _make_repeatable  # noqa: E402
from grpo_ros.simulators.isaaclab.environment_state import EnvironmentState  # noqa: E402


def _buffers(num_envs, lag):
    from isaaclab.utils.buffers import CircularBuffer, DelayBuffer

    ring = DelayBuffer(lag, num_envs, "cpu")
    ring.set_time_lag(torch.arange(num_envs) % (lag + 1))
    return SimpleNamespace(ring=ring, history=CircularBuffer(lag + 1, num_envs, "cpu"))


def _state(actuator, num_envs):
    """The state of an environment that holds these buffers and nothing else."""
    scene = SimpleNamespace(articulations={}, sensors={"delayed": actuator})
    env = SimpleNamespace(num_envs=num_envs, scene=scene, episode_length_buf=torch.zeros(num_envs))
    return EnvironmentState(env, None)


def _pushed(actuator, data):
    actuator.history.append(data)
    return actuator.ring.compute(data), actuator.history.buffer.clone()


@pytest.mark.parametrize("num_envs", [1, 3, 4])  # 3: as many as a buffer has frames
@pytest.mark.parametrize("num_before", [1, 2, 5])
def test_a_restored_environment_sees_the_past_of_its_snapshot(num_envs, num_before):
    actuator = _buffers(num_envs, lag=2)
    generator = torch.Generator().manual_seed(0)

    def push():
        return _pushed(actuator, torch.rand(num_envs, 2, generator=generator))

    for _ in range(num_before):
        push()
    state = _state(actuator, num_envs)
    found = [name for name, _ in state._remembered() if name.endswith("/_buffer")]
    assert len(found) == 2, "the frames of both, and no second time"
    taken = state.remembered()
    following = torch.rand(num_envs, 2, generator=generator)
    expected = _pushed(actuator, following)
    for _ in range(2):  # the ring stands elsewhere now, and holds other frames
        push()
    every = torch.arange(num_envs)
    state.recall(every, taken)
    found = _pushed(actuator, following)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    first = {name: value[:1] for name, value in taken.items()}
    state.recall(every, {k: v.expand(num_envs, *v.shape[1:]) for k, v in first.items()})
    delayed, history = _pushed(actuator, following[:1].expand(num_envs, 2))
    assert torch.equal(history, history[:1].expand_as(history)), "a group has one past"
    assert torch.equal(delayed, delayed[:1].expand_as(delayed))


def test_delays_that_change_on_the_way_are_held():
    term = SimpleNamespace(delay_hold_prob=0.5, delay_max_lag=3)
    found = SimpleNamespace(
        observations=SimpleNamespace(policy=SimpleNamespace(joints=term)),
        events=None,
        curriculum=None,
        commands=None,
    )
    assert _make_repeatable(found) == ["changes of observation delays"]
    assert term.delay_hold_prob == 1.0
