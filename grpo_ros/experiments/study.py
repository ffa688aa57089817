"""Study: which scenarios, arms and seeds are compared, as a YAML file says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from grpo_ros import presets, typed
from grpo_ros.configuration import SHORT_NAMES, load_config, read_layer
from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.training.settings import SECTIONS_BY_SELECTOR, TrainConfig

KIND = "studies"
COMPARED = ("task", "algorithm")
"""Settings that tell the runs of a study apart, whatever its arms set."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A task as it is compared on: the same budget for all arms."""

    task: str = typed.setting(description="What is to be done")
    difficulty: str = typed.setting("", "easy | medium | hard; empty: the task's plain preset")
    env_steps: int = typed.setting(0, "Budget of each run; 0: the preset's", minimum=0)
    threshold: float = typed.setting(
        0.8, "Success whose first reaching is timed", minimum=0.0, maximum=1.0
    )
    traits: tuple[str, ...] = typed.setting(
        (), "short_horizon, long_horizon, multi_stage: what expectations are about"
    )
    settings: tuple[str, ...] = typed.setting((), "key=value, of all arms")
    arms: tuple[str, ...] = typed.setting((), "Those that are tried on it; empty: all")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of learning."""

    phase: int = typed.setting(1, "Of the protocol", minimum=1)
    title: str = typed.setting("", "In tables and plots; empty: its name")
    settings: tuple[str, ...] = typed.setting((), "key=value, above the presets")
    scenarios: tuple[str, ...] = typed.setting((), "Those it is tried on; empty: all")
    seeds: int = typed.setting(0, "How many; 0: the study's", minimum=0)
    seeds_in: Mapping[str, int] = typed.setting(
        factory=dict, description="Scenario -> how many seeds, instead"
    )


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        limits: what may not be concluded from it, for the report.
        tuning: how settings were chosen, for the report.
    """

    title: str
    scenarios: Mapping[str, Scenario]
    arms: Mapping[str, Arm]
    seeds: int = typed.setting(5, "Seeds of each arm: 0, 1, ...", minimum=1)
    settings: tuple[str, ...] = typed.setting((), "key=value, of all runs")
    limits: str = ""
    tuning: str = ""
    first_seed: int = typed.setting(0, "Seeds count on from here", minimum=0)

    def cells(self, phases: Collection[int] = ()) -> list[Cell]:
        """Return the runs of some phases, or of all: a seed of everything before the next."""
        counts = [
            (scenario, arm, self._num_seeds(scenario, arm))
            for scenario in self.scenarios
            for arm, each in self.arms.items()
            if (not phases or each.phase in phases) and self._is_tried(arm, scenario)
        ]
        most = max((num for _, _, num in counts), default=0)
        return [
            Cell(self, scenario, arm, self.first_seed + seed)
            for seed in range(most)
            for scenario, arm, num in counts
            if seed < num
        ]

    def _is_tried(self, arm: str, scenario: str) -> bool:
        on, of = self.arms[arm].scenarios, self.scenarios[scenario].arms
        return (not on or scenario in on) and (not of or arm in of)

    def _num_seeds(self, scenario: str, arm: str) -> int:
        each = self.arms[arm]
        return each.seeds_in.get(scenario, each.seeds or self.seeds)

    def _scenarios_of(self, task: str) -> list[str]:
        """Return the scenario of a name, or else those of a task."""
        if task in self.scenarios:
            return [task]
        found = [name for name, each in self.scenarios.items() if each.task == task]
        if not found:
            known = {*self.scenarios, *(each.task for each in self.scenarios.values())}
            raise ConfigurationError(f"task '{task}'", remedy=nearest(task, sorted(known)))
        return found

    def title_of(self, arm: str) -> str:
        """Return what an arm is called in tables and plots."""
        return self.arms[arm].title or arm

    def narrowed(
        self,
        tasks: Sequence[str] = (),
        seeds: int | None = None,
        settings: Sequence[str] = (),
    ) -> Study:
        """Return the study with some tasks, another number of seeds, and more settings.

        Raises:
            ConfigurationError: no scenario has such a task or name, there would be no seeds, or a
                setting would change what an arm is.
        """
        if seeds is not None and seeds < 1:
            raise ConfigurationError(f"'seeds' = {seeds}", expected="at least 1")
        scenarios = dict(self.scenarios)
        if tasks:
            chosen = {name for task in tasks for name in self._scenarios_of(task)}
            scenarios = {name: each for name, each in scenarios.items() if name in chosen}
        arms = dict(self.arms)
        if seeds is not None:
            arms = {
                name: dataclasses.replace(arm, seeds=0, seeds_in={}) for name, arm in arms.items()
            }
        for name, arm in arms.items():
            kept = tuple(s for s in arm.scenarios if s in scenarios) or arm.scenarios
            seeds_in = {s: num for s, num in arm.seeds_in.items() if s in scenarios}
            arms[name] = dataclasses.replace(arm, scenarios=kept, seeds_in=seeds_in)
        arms = {
            name: arm
            for name, arm in arms.items()
            if any(self._is_tried(name, scenario) for scenario in scenarios)
        }
        for setting in settings:
            _refuse_compared(setting, arms)
        return dataclasses.replace(
            self,
            scenarios=scenarios,
            arms=arms,
            seeds=self.seeds if seeds is None else seeds,
            settings=(*self.settings, *settings),
        )

    def checked(self) -> Study:
        """Return the study, once every run of it has a valid configuration.

        Raises:
            ConfigurationError: of the first that has not, naming it.
        """
        for name, arm in self.arms.items():
            for wanted in (*arm.scenarios, *arm.seeds_in):
                if wanted not in self.scenarios:
                    raise ConfigurationError(
                        f"arm '{name}' is to be tried on '{wanted}'",
                        remedy=nearest(wanted, self.scenarios),
                    )
        for name, scenario in self.scenarios.items():
            for wanted in scenario.arms:
                if wanted not in self.arms:
                    raise ConfigurationError(
                        f"on scenario '{name}' arm '{wanted}' is to be tried",
                        remedy=nearest(wanted, self.arms),
                    )
        for cell in self.cells():
            if cell.seed == self.first_seed:
                cell.config()
        return self


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study."""

    study: Study
    scenario: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Return its name, which is its folder's path below the study's."""
        return f"{self.scenario}/{self.arm}/seed_{self.seed}"

    def settings(self) -> list[str]:
        """Return what `grpo-ros train` is given, but for the output."""
        scenario = self.study.scenarios[self.scenario]
        found = [f"task={scenario.task}"]
        if scenario.difficulty:
            found.append(f"difficulty={scenario.difficulty}")
        if scenario.env_steps:
            found.append(f"collection.env_steps={scenario.env_steps}")
        arm = self.study.arms[self.arm]
        return [
            *found,
            *self.study.settings,
            *scenario.settings,
            *arm.settings,
            f"seed={self.seed}",
        ]

    def config(self) -> TrainConfig:
        """Return its configuration.

        Raises:
            ConfigurationError: a setting is unknown or out of range; names the run.
        """
        try:
            return load_config(self.settings())
        except ConfigurationError as problem:
            raise ConfigurationError(
                f"run {self.name}: {problem.what}",
                expected=problem.expected,
                remedy=problem.remedy,
            ) from None


def load_study(name: str) -> Study:
    """Return a study by the name of a preset (config/studies) or from a YAML file.

    Raises:
        ConfigurationError: there is none, or a mistake in it.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        found = presets.preset_file(KIND, name)
        if found is None:
            raise ConfigurationError(
                f"no study '{name}'",
                expected="a YAML file, or one of " + ", ".join(presets.preset_names(KIND)),
                remedy=nearest(name, presets.preset_names(KIND)),
            )
        path = found
    return typed.decode(Study, read_layer(path).tree, path="study").checked()


def _refuse_compared(setting: str, arms: Mapping[str, Arm]) -> None:
    """Raise ConfigurationError where a setting for all runs is one that tells arms apart."""
    if any(_is_of_one_key(setting, f"{key}=") for key in COMPARED):
        raise ConfigurationError(
            f"'{setting}' for all runs of a study",
            expected="no task and no algorithm: these are what it compares",
            remedy="choose among its tasks, or write a study of your own",
        )
    for name, arm in arms.items():
        for its in arm.settings:
            if _is_of_one_key(setting, its):
                raise ConfigurationError(
                    f"'{setting}' for all runs of a study, whose arm '{name}' has '{its}'",
                    expected="settings that no arm has: it would hold for some arms alone",
                    remedy="write a study of your own",
                )


def _is_of_one_key(setting: str, other: str) -> bool:
    """Return whether two settings are of the same key, or one of a part of the other's."""
    return any(
        f"{one}.".startswith(f"{two}.") or f"{two}.".startswith(f"{one}.")
        for one in _keys(setting)
        for two in _keys(other)
    )


def _keys(setting: str) -> list[str]:
    """Return the dotted keys that a setting may be of: `task.x` is x of any task."""
    key = setting.partition("=")[0].rstrip(": ").strip()
    key = SHORT_NAMES.get(key, key)
    selector, dot, rest = key.partition(".")
    sections = SECTIONS_BY_SELECTOR.get(selector, ()) if dot else ()
    return [f"{section}.{rest}" for section in sections] or [key]
