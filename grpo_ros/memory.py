"""The command `grpo-ros memory`: what training takes, item by item."""

from __future__ import annotations

import argparse

METHODS, ALGORITHMS = ("lora", "head", "full"), ("grpo", "ppo")


def add_memory_arguments(command: argparse.ArgumentParser) -> None:
    """Add what the command takes, beside settings."""
    command.add_argument("--task", default="pick_place", help="what is learned (pick_place)")
    command.add_argument(
        "--policy", choices=("gr00t", "gaussian", "flow"), default="gr00t", help="(gr00t)"
    )
    command.add_argument(
        "--method", choices=(*METHODS, "all"), default="all", help="what learns of a GR00T (all)"
    )
    command.add_argument(
        "--algorithm", choices=(*ALGORITHMS, "all"), default="all", help="by which (all)"
    )
    command.add_argument(
        "--measure", action="store_true", help="make a rollout and an update, and measure"
    )


def memory(options: argparse.Namespace) -> int:
    """Say how much memory training takes, item by item, for each way of it.

    Nothing is loaded but for --measure: sizes are counted on a model without weights.
    """
    from grpo_ros import configuration
    from grpo_ros.training.memory import estimate_memory
    from grpo_ros.training.memory_measured import measure_memory
    from grpo_ros.training.memory_table import Compared, memory_table

    methods = METHODS if options.method == "all" else (options.method,)
    algorithms = ALGORITHMS if options.algorithm == "all" else (options.algorithm,)
    compared = []
    for method in methods if options.policy == "gr00t" else ("",):
        for algorithm in algorithms:
            chosen = [f"{key}={getattr(options, key)}" for key in ("task", "policy")]
            chosen += [f"algorithm={algorithm}", *([f"gr00t.trained={method}"] if method else [])]
            config = configuration.load_config([*chosen, *options.settings])
            found = measure_memory(config) if options.measure else {}
            compared.append(Compared(estimate_memory(config), found))
    print(memory_table(compared))
    return 0
