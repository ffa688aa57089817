"""The plots of a study, as SVG."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from grpo_ros.experiments.comparison import Curve, band
from grpo_ros.experiments.findings import CONTROL, GROUP_ARMS, GRPO, PPO
from grpo_ros.experiments.results import Results
from grpo_ros.report.curves import step_label

COLOURS = (
    "#2464a8", "#d9822b", "#2e9e5b", "#c0504d", "#7a5ba6", "#3aa3b0", "#a07a3d", "#d36fa1",
    "#6b7780", "#9bb23c",
)  # fmt: skip
MOST_BANDS = 5
PANELS = 4  # in a row
AXES = {
    "env_steps": "environment steps",
    "gradient_steps": "gradient steps",
    "cpu_s": "CPU seconds of rollouts and updates",
}


def is_crowded(arms: Sequence[str]) -> bool:
    """Return whether bands of so many arms would hide each other."""
    return len(arms) > MOST_BANDS


def success_plot(results: Results, scenario: str, arms: Sequence[str]) -> str:
    """Return success over environment steps, gradient steps and time; bands: all seeds.

    Where they are crowded the means alone: `each_option_plot` has their bands.
    """
    colours, is_banded = _colours(arms), not is_crowded(arms)
    with _figure(11.0, 3.6, 3) as (figure, axes):
        for axis, (name, label) in zip(axes, AXES.items(), strict=True):
            for arm in arms:
                runs, title = results.of(scenario, arm), results.study.title_of(arm)
                curve = band(runs, "eval_success", name)
                _draw(axis, curve, title, colours[arm], is_banded=is_banded)
            _control(axis, results, scenario)
            axis.set_xlabel(label)
        _share_success(axes)
        if axes[0].get_legend_handles_labels()[0]:
            axes[0].legend(frameon=False, fontsize=8, loc="lower right")
        return _svg(figure)


def each_option_plot(
    results: Results, scenario: str, references: Sequence[str], arms: Sequence[str]
) -> str:
    """Return one panel for each arm, beside what it is compared with; bands: all seeds."""
    rows, colours = math.ceil(len(arms) / PANELS), _colours(references)
    with _figure(11.0, 2.5 * rows, PANELS, rows) as (figure, axes):
        shown = axes[: len(arms)]
        for axis, arm in zip(shown, arms, strict=True):
            for reference in references:
                curve = band(results.of(scenario, reference), "eval_success")
                title = results.study.title_of(reference)
                _draw(axis, curve, title, colours[reference], is_faint=True)
            title = results.study.title_of(arm)
            _draw(axis, band(results.of(scenario, arm), "eval_success"), title, COLOURS[2])
            _control(axis, results, scenario)
            axis.set_title(title, fontsize=9.0, color=COLOURS[2])
        for axis in axes[len(arms) :]:
            axis.set_visible(False)
        _share_success(shown)
        for axis in shown[-PANELS:]:
            axis.set_xlabel("environment steps")
        titles = [results.study.title_of(reference) for reference in references]
        lines = [line for line in shown[0].get_lines() if line.get_label() in titles]
        shown[0].legend(handles=lines, frameon=False, fontsize=7.5, loc="lower right")
        return _svg(figure)


def _draw(
    axis: Any,
    curve: Curve,
    title: str,
    colour: str,
    *,
    is_faint: bool = False,
    is_banded: bool = True,
) -> None:
    """Draw a mean and its band; nothing where there is no curve."""
    x, mean, low, high = curve
    if not x:
        return
    if is_banded:
        alpha = 0.07 if is_faint else 0.13
        axis.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)
    axis.plot(x, mean, color=colour, linewidth=1.0 if is_faint else 1.5, label=title)


def _control(axis: Any, results: Results, scenario: str) -> None:
    control = results.of(scenario, CONTROL)
    if control:
        rate = sum(run.success_rate for run in control.values()) / len(control)
        axis.axhline(rate, color="#555555", linewidth=1.0, linestyle=":")


def _share_success(axes: Sequence[Any]) -> None:
    """Give all the same range of success: up to 1, from a tenth below all that is drawn."""
    lowest = min(axis.dataLim.y0 for axis in axes)
    bottom = math.floor(lowest * 10.0) / 10.0 if math.isfinite(lowest) else 0.0
    for axis in axes:
        axis.set_ylim(max(bottom, 0.0) - 0.02, 1.02)
        axis.xaxis.set_major_formatter(step_label)
    axes[0].set_ylabel("success")


def group_plot(results: Results, scenario: str) -> str:
    """Return what the groups were like: no difference, reward, diversity, by environment steps."""
    names = {
        "zero_variance_fraction": "groups without a difference",
        "train_success": "success while exploring",
        "diversity": "spread of actions in a group",
    }
    colours, tried = _colours((PPO, *GROUP_ARMS)), results.arms_on(scenario)
    with _figure(11.0, 3.2, 3) as (figure, axes):
        for axis, (name, label) in zip(axes, names.items(), strict=True):
            for arm in [arm for arm in (PPO, *GROUP_ARMS) if arm in tried]:
                curve = band(results.of(scenario, arm), name)  # of PPO none: no groups
                _draw(axis, curve, results.study.title_of(arm), colours[arm])
            axis.set_title(label, fontsize=9.5)
            axis.set_xlabel("environment steps")
            axis.xaxis.set_major_formatter(step_label)
            axis.set_ylim(bottom=0.0)
        if axes[1].get_legend_handles_labels()[0]:
            axes[1].legend(frameon=False, fontsize=8)
        return _svg(figure)


def reward_plot(results: Results, scenario: str, arm: str = GRPO) -> str:
    """Return how groups' rewards were distributed: all failed, mixed, all succeeded."""
    with _figure(5.0, 3.0, 1) as (figure, axes):
        x, fail, _, _ = band(results.of(scenario, arm), "all_fail_fraction")
        _, whole, _, _ = band(results.of(scenario, arm), "all_success_fraction")
        if x and whole:
            mixed = [max(0.0, 1.0 - f - s) for f, s in zip(fail, whole, strict=True)]
            axes[0].stackplot(
                x,
                fail,
                mixed,
                whole,
                colors=("#c0504d", "#9aa3ab", "#2e9e5b"),
                alpha=0.75,
                labels=("all failed", "mixed: these teach", "all succeeded"),
            )
            axes[0].legend(fontsize=8, framealpha=0.85)
        axes[0].set_ylim(0.0, 1.0)
        axes[0].set_title(f"groups of {results.study.title_of(arm)}", fontsize=9.5)
        axes[0].set_xlabel("environment steps")
        axes[0].xaxis.set_major_formatter(step_label)
        return _svg(figure)


@contextlib.contextmanager
def _figure(
    width: float, height: float, columns: int, rows: int = 1
) -> Iterator[tuple[Any, list[Any]]]:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {"svg.hashsalt": "grpo_ros", "svg.fonttype": "none", "font.size": 9.0}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis in axes:
            axis.grid(alpha=0.25, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _colours(arms: Sequence[str]) -> dict[str, str]:
    """Return a colour for each arm: PPO and plain GRPO have the same in every plot."""
    fixed = {PPO: COLOURS[0], GRPO: COLOURS[1]}
    others = [arm for arm in arms if arm not in fixed]
    free = COLOURS[2:]
    return fixed | {arm: free[index % len(free)] for index, arm in enumerate(others)}
