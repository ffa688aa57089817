"""Statistics of a study: over seeds, paired by seed and by held-out initial state."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from grpo_ros.experiments.results import Point, Result
from grpo_ros.training.statistics import paired_difference, wilson_interval

POWER = 0.8
"""Chance that as many seeds as are asked for do settle it."""


def student_quantile(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t."""
    return float(stdtrit(freedom, 0.975))


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; infinitely wide where one value cannot tell its spread.

    Attributes:
        mean, low, high: of the values.
        num: how many values.
    """

    mean: float
    low: float
    high: float
    num: int

    @property
    def half(self) -> float:
        """Half of the width."""
        return 0.5 * (self.high - self.low)

    def text(self, digits: int = 3, *, signed: bool = False) -> str:
        """Return `mean [low, high]`; one seed's interval is that of its episodes, and says so."""
        if not self.num:
            return "no common seeds"
        sign = "+" if signed else ""
        mean = f"{self.mean:{sign}.{digits}f}"
        if not math.isfinite(self.low):
            return f"{mean} [one seed]"
        single = "; one seed" if self.num == 1 else ""
        return f"{mean} [{self.low:{sign}.{digits}f}, {self.high:{sign}.{digits}f}{single}]"


def student_interval(values: Sequence[float]) -> Interval:
    """Return mean and 95 % interval by Student's t: mean +- t s / sqrt(n) (Student, 1908)."""
    n = len(values)
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf, 0)
    mean = float(np.mean(values))
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = student_quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def success(runs: Mapping[int, Result]) -> Interval:
    """Return the mean success over seeds, within [0, 1].

    Seeds are what varies, so the interval is Student's over them; it is no narrower than Wilson's
    of all their episodes, which is what one seed alone has.
    """
    found = student_interval([run.success_rate for run in runs.values()])
    if not runs:
        return found
    episodes = sum(len(run.outcomes) for run in runs.values())
    low, high = wilson_interval(sum(run.successes for run in runs.values()), episodes)
    if len(runs) > 1:
        low, high = max(0.0, min(low, found.low)), min(1.0, max(high, found.high))
    return Interval(found.mean, low, high, found.num)


def paired(first: Mapping[int, Result], second: Mapping[int, Result]) -> Interval:
    """Return the mean over common seeds of first - second on the same held-out states.

    A seed shares demonstrations, clone and held-out states between arms, so that what it brings to
    both cancels. The interval is Student's over seeds, no narrower than that of all their
    episodes' differences, which is what one common seed has.
    """
    seeds = sorted(first.keys() & second.keys())
    found = student_interval([first[s].success_rate - second[s].success_rate for s in seeds])
    if not seeds:
        return found
    least = _half_by_episodes(first, second, seeds)
    return _centred(found, least if len(seeds) == 1 else max(found.half, least))


def simultaneous(arms: Mapping[str, Mapping[int, Result]]) -> dict[tuple[str, str], Interval]:
    """Return success of each arm minus that of each other, by intervals that hold all at once.

    Of many pairs of equals some differ by chance in their own 95 % intervals; here none does, 95
    times of 100. By the seeds that all arms have: a rate is its arm's plus its seed's plus a
    residual of one spread s, and a difference is within q s / sqrt(n), q being Tukey's studentized
    range (Tukey, 1953). Empty where fewer than two arms or seeds are common.
    """
    seeds = sorted(set.intersection(*(set(runs) for runs in arms.values()))) if arms else []
    if len(arms) < 2 or len(seeds) < 2:
        return {}
    from scipy.stats import studentized_range  # takes a second to import

    rates = np.array([[runs[s].success_rate for s in seeds] for runs in arms.values()])
    rates_of_arms, num = rates.mean(axis=1), len(seeds)
    freedom = (len(arms) - 1) * (num - 1)
    residuals = rates - rates_of_arms[:, None] - rates.mean(axis=0) + rates.mean()
    spread = math.sqrt(float((residuals**2).sum()) / freedom)
    half = float(studentized_range.ppf(0.95, len(arms), freedom)) * spread / math.sqrt(num)
    return {
        (a, b): _centred(
            Interval(float(rates_of_arms[i] - rates_of_arms[j]), 0.0, 0.0, num),
            max(half, _half_by_episodes(arms[a], arms[b], seeds)),
        )
        for i, a in enumerate(arms)
        for j, b in enumerate(arms)
        if a != b
    }


def _half_by_episodes(
    first: Mapping[int, Result], second: Mapping[int, Result], seeds: Sequence[int]
) -> float:
    """Return half of the 95 % interval of the difference over all episodes of some seeds."""
    a, b = (_array("".join(runs[s].outcomes for s in seeds)) for runs in (first, second))
    mean, _, high = paired_difference(a, b)
    return high - mean


def _centred(found: Interval, half: float) -> Interval:
    return dataclasses.replace(found, low=found.mean - half, high=found.mean + half)


@dataclasses.dataclass(frozen=True)
class Reached:
    """When runs first reached a success.

    Attributes:
        steps: seed -> environment steps; of a run that never did, its whole budget.
        censored: seeds of runs that never did.
    """

    steps: Mapping[int, float]
    censored: frozenset[int]

    def text(self) -> str:
        """Return the median, and how many never arrived."""
        if not self.steps:
            return "no runs"
        values = sorted(
            math.inf if seed in self.censored else value for seed, value in self.steps.items()
        )
        middle = 0.5 * (values[(len(values) - 1) // 2] + values[len(values) // 2])
        median = f"{middle / 1e3:,.0f} k" if math.isfinite(middle) else "not reached"
        never = f", {len(self.censored)} of {len(self.steps)} never" if self.censored else ""
        return f"{median}{never}"


def steps_to(runs: Mapping[int, Result], threshold: float) -> Reached:
    """Return when each run's curve first reached a success, between points by a straight line."""
    steps, censored = {}, set()
    for seed, run in runs.items():
        found = first_reached(run.points, threshold)
        if found is None:
            censored.add(seed)
        steps[seed] = float(run.env_steps) if found is None else found
    return Reached(steps, frozenset(censored))


def first_reached(points: Sequence[Point], threshold: float) -> float | None:
    """Return the environment steps at which a curve first reaches a success; None: never."""
    before: tuple[float, float] | None = None
    for point in points:
        at, value = float(point.env_steps), point.values["eval_success"]
        if value >= threshold:
            if before is None:
                return at
            share = (threshold - before[1]) / (value - before[1])
            return before[0] + share * (at - before[0])
        before = at, value
    return None


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Steps of one arm over those of another, by the same seeds.

    Attributes:
        interval: geometric mean and 95 % interval (Student's t on logarithms); infinitely wide
            where runs never arrived, since nobody knows how much later they would have.
        is_upper_bound: runs of the second never arrived, so the true ratio is smaller.
        is_lower_bound: runs of the first never arrived, so it is greater.
        num_begun: seeds beyond these that were there before any learning, and tell nothing.
    """

    interval: Interval
    is_upper_bound: bool
    is_lower_bound: bool
    num_begun: int = 0

    def text(self) -> str:
        """Return the ratio, with what is known of it where runs never arrived."""
        begun = f"seeds there before learning: {self.num_begun}" if self.num_begun else ""
        if not self.interval.num:
            return begun or "no common seeds"
        sign = {(True, True): "~ ", (True, False): "<= ", (False, True): ">= "}.get(
            (self.is_upper_bound, self.is_lower_bound), ""
        )
        text = f"{sign}{self.interval.mean:.2f} [some never arrived]"
        return ", ".join(filter(None, [text if sign else self.interval.text(2), begun]))


def step_ratio(first: Reached, second: Reached) -> Ratio:
    """Return how many of the second's steps the first needs; censored runs count their budget."""
    common = sorted(first.steps.keys() & second.steps.keys())
    seeds = [s for s in common if first.steps[s] > 0.0 and second.steps[s] > 0.0]
    is_upper, is_lower = (bool(each.censored & set(seeds)) for each in (second, first))
    logs = [math.log(first.steps[s] / second.steps[s]) for s in seeds]
    found = student_interval(logs)
    is_known = math.isfinite(found.low) and not (is_upper or is_lower)
    interval = Interval(
        math.exp(found.mean) if seeds else math.nan,
        math.exp(found.low) if is_known else -math.inf,
        math.exp(found.high) if is_known else math.inf,
        found.num,
    )
    return Ratio(interval, is_upper, is_lower, len(common) - len(seeds))


Curve = tuple[list[float], list[float], list[float], list[float]]
"""x, mean, lowest and highest of each x; empty lists: there is none."""


def band(runs: Mapping[int, Result], name: str, axis: str = "env_steps", num: int = 60) -> Curve:
    """Return a curve over seeds.

    A run that ended early, as it could not do better, keeps its last value; where a curve begins
    later than another, x begins with the latest.

    Args:
        runs: by seed.
        name: of SERIES.
        axis: env_steps | gradient_steps | wall_s | cpu_s.
        num: points of x.
    """
    curves = []
    for run in runs.values():
        chosen = [p for p in run.points if name in p.values]
        if chosen:
            x = [float(getattr(point, axis)) for point in chosen]
            curves.append((x, [point.values[name] for point in chosen]))
    if not curves:
        return [], [], [], []
    low, high = max(x[0] for x, _ in curves), max(x[-1] for x, _ in curves)
    grid = np.linspace(low, high, num)
    values = np.stack([np.interp(grid, x, y) for x, y in curves])
    return (
        grid.tolist(),
        values.mean(axis=0).tolist(),
        values.min(axis=0).tolist(),
        values.max(axis=0).tolist(),
    )


def more_seeds(interval: Interval, margin: float) -> int | None:
    """Return how many values in all would probably narrow an interval to +- margin.

    With a chance of POWER by the spread s seen so far: the least n', more than there are, with
    (t + z) s / sqrt(n') <= margin, z being the normal distribution's quantile of that chance. None
    where the spread is unknown.
    """
    if interval.num < 2 or not math.isfinite(interval.half) or margin <= 0.0:
        return None
    deviation = interval.half * math.sqrt(interval.num) / student_quantile(interval.num - 1)
    z = float(ndtri(POWER))
    for num in range(interval.num + 1, 10_000):
        if (student_quantile(num - 1) + z) * deviation / math.sqrt(num) <= margin:
            return num
    return 10_000


def _array(outcomes: str) -> NDArray[np.float64]:
    return np.array([float(outcome) for outcome in outcomes])
