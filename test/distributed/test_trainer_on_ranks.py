"""A run on two ranks: one folder, one state, resumed on as many ranks as there are."""

import json

import pytest
import torch
from several_ranks import on_ranks

from grpo_ros.configuration import load_config
from grpo_ros.distributed.ranks import Ranks, own_share
from grpo_ros.errors import ConfigurationError
from grpo_ros.training.checkpoint import split_state
from grpo_ros.training.observer import TrainingObserver
from grpo_ros.training.trainer import Trainer

SMALL = (
    "num_groups=2",
    "group_size=4",
    "env_steps=1200",
    "demonstrations.episodes=2",
    "behaviour_cloning.num_steps=30",
    "algorithm.objectives=[score]",
    "evaluation.every_iterations=10",
    "evaluation.episodes=3",
    "evaluation.final_episodes=5",
    "checkpoint.every_iterations=1",
    "film=false",
)

pytestmark = pytest.mark.timeout(600)  # whichever test comes first waits for all the processes


class _StopAtFirst(TrainingObserver):
    def on_iteration(self, metrics, progress):
        if metrics["iteration"] == 1:
            self.trainer.requests.stop()


def _stopped(folder, ranks):
    """Return a trainer that was stopped after its first iteration, and how it ended."""
    observer = _StopAtFirst()
    config = load_config([*SMALL, f"output={folder}"])
    observer.trainer = trainer = Trainer(config, observers=[observer], ranks=ranks)
    return trainer, trainer.run()


def _on_ranks(ranks, new, begun):
    trainer, summary = _stopped(new, ranks)
    stopped = {"state": summary.state, "hash": trainer.state_hash(), "tree": trainer.state()}
    trainer = Trainer(load_config([*SMALL, f"output={begun}"]), ranks=ranks)
    resumed = {"hash": trainer.state_hash()}
    summary = trainer.run()
    return stopped, resumed | {"state": summary.state, "evaluation": dict(summary.evaluation)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run stopped on one rank and finished on two, and one the other way round."""
    begun, new = tmp_path_factory.mktemp("begun"), tmp_path_factory.mktemp("new")
    trainer, _ = _stopped(begun, Ranks())
    return trainer, begun, new, on_ranks(_on_ranks, str(new), str(begun))


def test_all_ranks_stop_together_with_one_state(runs):
    _, _, new, answers = runs
    first, second = (stopped for stopped, _ in answers)
    assert first["state"] == second["state"] == "stopped"
    assert first["hash"] == second["hash"]
    (folder,) = new.glob("pick_place/grpo/*")
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    assert len(list(folder.glob("tensorboard/*"))) == 1
    assert [json.loads(line)["iteration"] for line in (folder / "metrics.jsonl").open()] == [0, 1]


def test_the_first_iteration_is_that_of_one_rank(runs):
    trainer, begun, new, answers = runs
    expected, found = (split_state(s)[0] for s in (trainer.state(), answers[0][0]["tree"]))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=0.0, atol=1e-5), name
    lines = [next((f / "latest").glob("metrics.jsonl")).open() for f in (begun, new)]
    for one, several in zip(*lines, strict=False):
        assert json.loads(several) == pytest.approx(json.loads(one), rel=1e-3, abs=1e-4)


def test_what_one_rank_began_two_finish(runs):
    trainer, begun, _, answers = runs
    for _, resumed in answers:
        assert resumed["hash"] == trainer.state_hash()
        assert resumed["state"] == "finished" and resumed["evaluation"]["episodes"] == 5
    (folder,) = begun.glob("pick_place/grpo/*")
    assert (folder / "policy.onnx").exists() and (folder / "report.html").exists()


def test_what_two_ranks_began_one_goes_on_with(runs):
    _, _, new, answers = runs
    trainer = Trainer(load_config([*SMALL, f"output={new}"]))
    trainer.simulator.close()
    assert trainer.state_hash() == answers[0][0]["hash"]


def test_groups_that_cannot_be_shared_out_are_refused():
    ranks = Ranks()
    ranks.num = 3
    with pytest.raises(ConfigurationError, match="num_groups' = 4 on 3 ranks.*num_groups:=6"):
        own_share(4, ranks)
