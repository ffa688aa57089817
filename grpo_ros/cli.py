"""The command `grpo-ros`: training, evaluation and export without ROS.

Exit codes: 0 done; 1 a check failed; 2 a mistake in what was asked for, one line on stderr; 130
interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grpo_ros import __version__, typed
from grpo_ros.demonstrate import add_arguments, demonstrate
from grpo_ros.errors import ConfigurationError, GrpoRosError, MissingExtraError
from grpo_ros.experiments import command as experiments
from grpo_ros.files import write_atomically
from grpo_ros.memory import add_memory_arguments, memory
from grpo_ros.training.failures import command as failures

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; return its exit code."""
    options = _parsed(argv)
    try:
        code: int = options.run(options)
        return code
    except GrpoRosError as problem:
        print(f"grpo-ros: {problem}", file=sys.stderr)
        return MISTAKE
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        print(f"grpo-ros: {where}{problem.strerror or problem}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("grpo-ros: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; settings may stand before and after one, which argparse refuses."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if unknown := [word for word in rest if word.startswith("-") or "=" not in word]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest and not hasattr(options, "settings"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.settings = [*options.settings, *rest]
    return options


def train(options: argparse.Namespace) -> int:
    """Train a policy; the last line names what was written."""
    from grpo_ros.configuration import check_is_for_learner, load_config
    from grpo_ros.reference import settings_table

    if options.keys:
        print(settings_table())
        return 0
    if options.config:
        check_is_for_learner(Path(options.config))
    config = load_config(options.settings, options.config)

    from grpo_ros.training.command import run_training

    return run_training(config)


def evaluate(options: argparse.Namespace) -> int:
    """Measure a policy on held-out initial states; write and print the result."""
    from grpo_ros.deployment.simulation.simulated_task import in_process_outcomes, run_config
    from grpo_ros.export.policy_file import load_policy_file
    from grpo_ros.training.evaluation import held_out_keys
    from grpo_ros.versions import versions

    path = Path(options.policy)
    policy = load_policy_file(path)
    began = time.monotonic()
    keys = held_out_keys(options.episodes, options.seed, options.first_episode)
    folder = path.resolve().parent
    result = in_process_outcomes(policy, keys, folder, options.simulator, options.blank)
    report = {
        **result.to_json(),
        "policy": str(path),
        "policy_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "task": policy.contract.task,
        "simulator": options.simulator or run_config(policy.contract, folder).simulator,
        "seed": options.seed,
        "first_episode": options.first_episode,
        "blank": options.blank,
        "wall_seconds": round(time.monotonic() - began, 2),
        "versions": versions(),
        "outcome": [int(outcome) for outcome in result.outcome.tolist()],
    }
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    default = path.parent / "evaluations" / f"{stamp}.json"
    target = _write_report(options.output or default, report)
    print(f"success {result} held-out episodes; wrote {target}")
    return 0


def transfer(options: argparse.Namespace) -> int:
    """Measure policies in every simulator on the same initial states; print the table."""
    from grpo_ros.deployment.records.transfer import transfer_table
    from grpo_ros.versions import versions

    rows = transfer_table([Path(path) for path in options.policies], options.episodes, print)
    report = {"episodes": options.episodes, "rows": rows, "versions": versions()}
    print(f"wrote {_write_report(options.output or 'transfer.json', report)}")
    return 0


def export(options: argparse.Namespace) -> int:
    """Write the policy of a run's checkpoint, or a policy file as a LEAPP bundle."""
    from grpo_ros.training.export_run import export_checkpoint

    source, wanted = Path(options.source), options.checkpoint
    if options.format == "onnx":
        if source.is_file():
            raise ConfigurationError(
                f"{source} is a file",
                expected="a run's folder, as runs/latest",
                remedy="name one, or say --format leapp for a bundle of this file",
            )
        path = Path(options.output) if options.output else None
        name, path = export_checkpoint(source, wanted, path)
        print(f"exported checkpoint {name}; wrote {path}")
        return 0

    from grpo_ros.export.leapp_bundle import export_leapp

    if source.is_file():
        bundle = export_leapp(source, options.output or source.parent / "leapp")
        print(f"exported {source}; wrote {bundle.folder}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        name, path = export_checkpoint(source, wanted, Path(folder) / "policy.onnx")
        bundle = export_leapp(path, options.output or source / "leapp")
    print(f"exported checkpoint {name}; wrote {bundle.folder}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Run the conformance suite on a simulator; write what held as JSON."""
    from grpo_ros import configuration
    from grpo_ros.simulators.check import check_simulator
    from grpo_ros.simulators.registry import make_simulator
    from grpo_ros.tasks.registry import make_task
    from grpo_ros.versions import versions

    config = configuration.load_config(options.settings)
    task = make_task(config.task, configuration.section(config, "task"))
    settings = configuration.section(config, "simulator")
    report = check_simulator(
        lambda num_envs: make_simulator(config.simulator, task, num_envs, settings), print
    )
    report = {
        "simulator": config.simulator,
        "settings": typed.encode(settings),
        "task": config.task,
        **report,
        "versions": versions(),
    }
    target = _write_report(options.output or f"check_{config.simulator}.json", report)
    print(f"{report['passed']} of {len(report['checks'])} checks passed; wrote {target}")
    return 0 if report["passed"] == len(report["checks"]) else FAILED


def replay_bag(options: argparse.Namespace) -> int:
    """Run a policy on a recorded bag, in line and without sending anything; print what it did."""
    try:
        from grpo_ros.nodes.recording.replay import replay_bag as replay
    except ImportError as problem:
        raise MissingExtraError(
            f"replay needs the Python packages of ROS 2 ({problem})",
            remedy="`source activate.sh`, or source ROS 2, first; it need not run",
        ) from problem
    result = replay(Path(options.bag), Path(options.policy), options.set)
    print("\n".join(result.lines()))
    if options.output:
        report = {"bag": options.bag, **dataclasses.asdict(result)}
        print(f"wrote {_write_report(options.output, report)}")
    return 0


def tasks(options: argparse.Namespace) -> int:
    """List the tasks: instruction, horizon, what is observed and commanded."""
    from grpo_ros.tasks.registry import TASKS, make_task

    for name in sorted(TASKS):
        contract = make_task(name).contract()
        seconds = contract.horizon / contract.control_rate_hz
        print(f"{name}: {contract.instruction}")
        print(
            f"  at most {contract.horizon} control periods ({seconds:g} s), {contract.embodiment}"
        )
        for field in contract.observation:
            unit = f" {field.unit}" if field.unit else ""
            print(f"  observes {field.name} {tuple(field.shape)}{unit}")
        for action in contract.action:
            print(f"  commands {action.name}: {action.kind} ({', '.join(action.names)})")
    return 0


def make_tiny_gr00t(options: argparse.Namespace) -> int:
    """Write a GR00T checkpoint of two million random weights that fits a task, to try things."""
    from grpo_ros import configuration
    from grpo_ros.policies.gr00t.files.tiny_checkpoint import make_tiny_checkpoint_for
    from grpo_ros.tasks.registry import make_task

    config = configuration.load_config([f"task={options.task}", *options.settings])
    task = make_task(config.task, configuration.section(config, "task"))
    path = make_tiny_checkpoint_for(task.contract(), options.folder, options.seed)
    print(f"random weights for {config.task}; wrote {path}")
    return 0


def _write_report(path: str | Path, report: dict[str, Any]) -> Path:
    """Write a report as JSON, its folder included; return where it is."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, (json.dumps(report, indent=1) + "\n").encode())
    return target


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grpo-ros", description="Train robot policies and measure them, without ROS."
    )
    parser.add_argument("--version", action="version", version=f"grpo-ros {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_training(commands)
    _add_policy_files(commands)
    _add_experiments(commands)
    _command(commands, "tasks", tasks)
    return parser


def _add_training(commands: Any) -> None:
    command = _command(commands, "train", train)
    _takes_settings(command, "task:=pick_place policy:=flow group_size:=16 seed:=1 resume:=never")
    command.add_argument("--config", metavar="FILE", help="YAML file of settings")
    command.add_argument("--keys", action="store_true", help="list all settings and end")

    command = _command(commands, "demonstrate", demonstrate)
    add_arguments(command)
    _takes_settings(command, "seed:=1 demonstrations.action_noise:=0")
    command = _command(commands, "check", check)
    _takes_settings(command, "simulator:=isaaclab backend:=kit task:=insert")
    command.add_argument("--output", metavar="FILE", help="where the report is written")

    failures.add_arguments(_command(commands, "replay", failures.replay))
    command = _command(commands, "memory", memory)
    add_memory_arguments(command)
    _takes_settings(
        command, "policy_path:=DIR gr00t.precision:=bfloat16 algorithm.minibatch_size:=32"
    )

    command = _command(commands, "make-tiny-gr00t", make_tiny_gr00t)
    command.add_argument("folder", metavar="DIR", help="a new folder")
    _takes_settings(command, "robot:=ur5e")
    command.add_argument("--task", default="pick_place", help="what it fits (pick_place)")
    command.add_argument("--seed", type=int, default=0, help="decides the weights (0)")


def _add_experiments(commands: Any) -> None:
    for name, run, add in experiments.COMMANDS:
        command = _command(commands, name, run)
        add(command)
        _takes_settings(command, "policy:=flow behaviour_cloning.num_steps:=3000")


def _add_policy_files(commands: Any) -> None:
    command = _command(commands, "evaluate", evaluate)
    command.add_argument("policy", metavar="FILE.onnx", help="policy file")
    command.add_argument("--episodes", type=_positive, default=1000, help="how many (1000)")
    command.add_argument("--seed", type=int, default=20_000, help="of the initial states")
    command.add_argument("--first-episode", type=int, default=0, help="first initial state")
    command.add_argument("--simulator", default="", help="another than it was trained in")
    command.add_argument(
        "--blank", action="append", default=[], metavar="FIELD", help="observed as zeros"
    )
    command.add_argument("--output", metavar="FILE", help="where the result is written")

    command = _command(commands, "transfer", transfer)
    command.add_argument("policies", nargs="+", metavar="FILE.onnx", help="policies of one task")
    command.add_argument("--episodes", type=_positive, default=500, help="how many (500)")
    command.add_argument("--output", metavar="FILE", help="where the table is written, as JSON")

    command = _command(commands, "export", export)
    command.add_argument(
        "source", metavar="RUN", help="a run's folder, e.g. runs/latest; for leapp also FILE.onnx"
    )
    command.add_argument(
        "--format", choices=("onnx", "leapp"), default="onnx", help="leapp: for Isaac ROS Deploy"
    )
    command.add_argument(
        "--checkpoint", default="", metavar="NAME", help="best, or a number; absent: the newest"
    )
    command.add_argument(
        "--output", metavar="PATH", help="instead of RUN/policy.onnx, or of the folder RUN/leapp"
    )

    command = _command(commands, "replay-bag", replay_bag)
    command.add_argument("bag", metavar="FOLDER", help="a bag of the black box or of ros2 bag")
    command.add_argument("--policy", metavar="FILE.onnx", required=True, help="policy file")
    command.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="key=value",
        help="parameters of the policy server, above those in the bag, e.g. runner.speed=0.1",
    )
    command.add_argument("--output", metavar="FILE", help="where the result is written, as JSON")


def _command(commands: Any, name: str, run: Any) -> argparse.ArgumentParser:
    summary = (run.__doc__ or "").strip()
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary.splitlines()[0], description=summary
    )
    command.set_defaults(run=run)
    return command


def _takes_settings(command: argparse.ArgumentParser, example: str) -> None:
    command.add_argument(
        "settings", nargs="*", metavar="key:=value", help=f"settings, e.g. {example}"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
