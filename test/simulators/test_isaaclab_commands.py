"""Commands of Isaac Lab environments stay through an episode as its reset drew them."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("isaaclab", reason="Isaac Lab is not installed: make isaaclab")

import isaaclab.envs.mdp as mdp  # noqa: E402
from isaaclab.envs.mdp.commands.pose_command import UniformPoseCommand  # noqa: E402

from grpo_ros.simulators.isaaclab.environment_config import _make_repeatable  # noqa: E402

EPISODE_S, PERIOD_S, NUM_ENVS = 12.0, 0.1, 4


def _pose_command(resampling_time_range):
    ranges = mdp.UniformPoseCommandCfg.Ranges(
        pos_x=(0.3, 0.6),
        pos_y=(-0.2, 0.2),
        pos_z=(0.1, 0.5),
        roll=(0.0, 0.0),
        pitch=(0.0, 0.0),
        yaw=(-3.0, 3.0),
    )
    return mdp.UniformPoseCommandCfg(
        asset_name="robot",
        body_name="hand",
        resampling_time_range=resampling_time_range,
        ranges=ranges,
    )


def _changed(commands):
    return _make_repeatable(
        SimpleNamespace(
            observations=SimpleNamespace(),
            events=None,
            curriculum=None,
            commands=commands,
            episode_length_s=EPISODE_S,
        )
    )


class Term(UniformPoseCommand):
    """The command of four members of a group, without a robot."""

    num_envs, device = NUM_ENVS, "cpu"

    def __init__(self, cfg):
        self.cfg, self.metrics = cfg, {}
        self.time_left = torch.zeros(NUM_ENVS)
        self.command_counter = torch.zeros(NUM_ENVS, dtype=torch.long)
        self.pose_command_b = torch.zeros(NUM_ENVS, 7)
        self._track_success = False

    def _update_metrics(self):
        pass

    def __del__(self):
        pass


def _is_held(cfg):
    """Whether the command after an episode is the one that its reset drew."""
    term = Term(cfg)
    term.reset()
    drawn = term.command.clone()
    for _ in range(round(EPISODE_S / PERIOD_S)):
        term.compute(PERIOD_S)
    return torch.equal(term.command, drawn) and len(drawn.unique(dim=0)) == NUM_ENVS


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_command_is_not_drawn_again_within_an_episode(as_dict):
    cfg = _pose_command((4.0, 6.0))
    assert not _is_held(cfg)
    terms = {"goal": cfg, "none": None}
    commands = terms if as_dict else SimpleNamespace(**terms)
    assert _changed(commands) == ["resampling of command 'goal'"]
    assert _is_held(cfg)


def test_a_time_that_a_preset_gives_is_held_as_well():
    hydra = pytest.importorskip("isaaclab_tasks.utils.hydra")
    cfg = _pose_command(hydra.preset(default=(4.0, 4.0), hold=(1e9, 1e9)))
    assert _changed(SimpleNamespace(goal=cfg)) == ["resampling of command 'goal'"]
    assert _is_held(cfg)


def test_a_command_that_lasts_longer_than_an_episode_stays_as_it_is():
    cfg, nothing = _pose_command((20.0, 30.0)), mdp.NullCommandCfg()
    assert _changed(SimpleNamespace(goal=cfg, nothing=nothing)) == []
    assert cfg.resampling_time_range == (20.0, 30.0)
    assert nothing.resampling_time_range == (torch.inf, torch.inf)


def test_a_command_is_not_drawn_again_when_it_is_fulfilled():
    term = SimpleNamespace(resampling_time_range=(1e6, 1e6), update_goal_on_success=True)
    assert _changed(SimpleNamespace(turn=term)) == ["resampling of command 'turn'"]
    assert not term.update_goal_on_success and term.resampling_time_range == (1e6, 1e6)
