"""The command `grpo-ros demonstrate`: a task's scripted demonstrations, kept in a folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from grpo_ros.errors import ConfigurationError

FORMATS = ("lerobot", "episodes")
MOST_ENVS = 64


def demonstrate(options: argparse.Namespace) -> int:
    """Record a task's scripted demonstrations and keep them in a folder.

    They are those that `grpo-ros train` would record with the same settings; clone them with
    demonstrations.path:=DIR.
    """
    from grpo_ros import configuration
    from grpo_ros.progress import terminal_progress
    from grpo_ros.tasks.registry import make_task
    from grpo_ros.training import demonstrations
    from grpo_ros.training.placement import place_simulator
    from grpo_ros.versions import versions

    folder, settings = _folder_and_settings([options.folder, *options.settings])
    if options.episodes is not None:
        settings.append(f"demonstrations.episodes={options.episodes}")
    config = configuration.load_config([f"task={options.task}", *settings])
    episodes, noise = config.demonstrations.episodes, config.demonstrations.action_noise
    if episodes < 1:
        raise ConfigurationError(f"{episodes} episodes", expected="at least 1")
    task = make_task(config.task, configuration.section(config, "task"))
    kind: demonstrations.Format = options.format or demonstrations.default_format()
    with terminal_progress() as progress:
        num_envs = min(episodes + 2, MOST_ENVS)
        simulator = place_simulator(config, task, num_envs, None, progress.on_message)
        try:
            contract = simulator.contract
            demonstrations.check_can_write(folder, contract, kind, options.video)
            progress.on_message(f"format {kind}{_reason(options.format, kind)}")
            told = progress.on_recorded
            recording = demonstrations.record_episodes(
                simulator, episodes, noise, config.seed, told
            )
        finally:
            simulator.close()
        progress.on_message(f"{episodes} demonstrations of {recording.attempts} attempts; writing")
        origin = demonstrations.Origin(config.simulator, config.seed, noise, versions())
        demonstrations.write_demonstrations(
            folder, recording, contract, origin, kind, options.video
        )
    print(
        f"recorded {recording.num_steps} control steps of {config.task}; wrote {folder} ({kind})"
    )
    return 0


def add_arguments(command: Any) -> None:
    """Add the folder and the options; settings follow."""
    command.add_argument("folder", metavar="DIR", help="a new or empty folder")
    command.add_argument("--task", default="pick_place", help="what is shown (pick_place)")
    command.add_argument("--episodes", type=int, help="successes to record (as the task's preset)")
    command.add_argument(
        "--format",
        choices=FORMATS,
        help="lerobot: a LeRobotDataset, the default where it can be; episodes: our own",
    )
    command.add_argument(
        "--video",
        action="store_true",
        help="images as lossy videos, as GR00T's own fine-tuning reads them; lerobot only",
    )


def _reason(asked: str | None, kind: str) -> str:
    if asked:
        return ""
    if kind == "lerobot":
        return ", as LeRobot is installed"
    return ", as LeRobot is not installed (make setup EXTRAS=gr00t)"


def _folder_and_settings(words: list[str]) -> tuple[Path, list[str]]:
    """Return the folder, which may stand before or after settings, and the settings."""
    folders = [word for word in words if "=" not in word]
    if len(folders) != 1:
        raise ConfigurationError(
            f"folders {', '.join(folders) or 'none'}", expected="one, and settings key:=value"
        )
    return Path(folders[0]), [word for word in words if "=" in word]
