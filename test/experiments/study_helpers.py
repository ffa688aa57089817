"""Studies that are small enough to run, and results that are made up."""

from __future__ import annotations

from pathlib import Path

from grpo_ros.experiments.results import Point, Result, Results
from grpo_ros.experiments.study import Arm, Scenario, Study

SMALL = """
title: Small
seeds: 1
settings:
  - film=false
  - collection.num_groups=3
  - collection.group_size=4
  - demonstrations.episodes=3
  - behaviour_cloning.num_steps=40
  - algorithm.objectives=[score]
  - evaluation.every_iterations=2
  - evaluation.episodes=8
  - evaluation.final_episodes=12
  - checkpoint.every_iterations=1
scenarios:
  pick: {task: pick_place, env_steps: STEPS, threshold: 0.5, traits: [short_horizon]}
arms:
  ppo: {settings: [algorithm=ppo]}
  grpo_8: {phase: 2, title: GRPO, settings: [algorithm=grpo]}
"""


def write_small(folder: Path, env_steps: int = 2000) -> Path:
    """Write a study of two short runs; return its path."""
    path = folder / "small.yaml"
    path.write_text(SMALL.replace("STEPS", str(env_steps)))
    return path


def made_up_study(**arms: int) -> Study:
    """A study of one scenario, with arms of the given phases."""
    return Study(
        "Made up",
        {"pick": Scenario("pick_place", env_steps=1000, traits=("short_horizon",))},
        {
            "cloning": Arm(title="cloned"),
            "ppo": Arm(title="PPO"),
            "grpo_8": Arm(2, title="GRPO 24 x 8"),
            "selection": Arm(3, settings=("starts.selection=learned",)),
            **{name: Arm(phase) for name, phase in arms.items()},
        },
    )


def run(
    arm: str,
    seed: int,
    successes: int,
    curve: tuple[float, ...] = (),
    episodes: int = 100,
    scenario: str = "pick",
) -> Result:
    """A run with so many successes, whose curve has a point each 100 steps."""
    points = tuple(
        Point(100 * i, 10 * i, float(i), float(i), {"eval_success": value})
        for i, value in enumerate(curve)
    )
    outcomes = "1" * successes + "0" * (episodes - successes)
    end = 100 * max(0, len(curve) - 1)
    return Result(scenario, arm, seed, outcomes, 40, end, 50, points, "hash", {"python": "3"})


def made_up(rates: dict[str, list[int]], **arms: int) -> Results:
    """Results whose arms have the given successes of 100, seed by seed."""
    runs = [run(arm, seed, n) for arm, found in rates.items() for seed, n in enumerate(found)]
    return Results(made_up_study(**arms), tuple(runs))
