"""What is recorded, and the samples that it is cloned as."""

import pytest
import torch
from demonstration_helpers import assert_equal, make_simulator, recorded

from grpo_ros.training import demonstrations
from grpo_ros.training.demonstrations import Episode, Recording, to_samples


def test_what_is_recorded_does_not_depend_on_how_many_environments_there_are():
    simulator = make_simulator(num_envs=5)
    told = []
    recording = demonstrations.record_episodes(
        simulator, 2, 0.1, 1, lambda done, total: told.append((done, total))
    )
    simulator.close()
    assert_equal(recording, recorded("pick_place")[0])
    assert told == [(1, 2), (2, 2)]


def test_the_label_is_what_was_wanted_and_noise_is_in_what_was_executed():
    recording, contract = recorded("pick_place")
    names = [name for field in contract.action for name in field.names]
    assert len(names) == 5
    for episode in recording.episodes:
        noise = episode.executed - episode.action
        assert torch.all(noise[:, -1] == 0.0), "a gripper gets no noise"
        assert noise[:, :-1].std() == pytest.approx(0.1, rel=0.4)


def test_chunks_repeat_the_last_action_beyond_the_end_with_weight_0():
    action = torch.arange(6.0).reshape(3, 2)
    obs = {"tip": torch.arange(3.0).reshape(3, 1)}
    data = to_samples(Recording((Episode(obs, action, action),), 4), chunk_size=3)
    assert (data.episodes, data.attempts) == (1, 4)
    assert torch.equal(data.obs["tip"], obs["tip"])
    assert data.chunk[:, :, 0].tolist() == [[0, 2, 4], [2, 4, 4], [4, 4, 4]]
    assert data.weight.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
