"""The curves of a run, as SVG."""

from __future__ import annotations

import io
from typing import Any

from grpo_ros.report.run_files import RunFiles

BLUE, ORANGE, GREEN, RED, GREY = "#2464a8", "#d9822b", "#2e9e5b", "#c0504d", "#9aa3ab"


def curves(run: RunFiles) -> str:
    """Return four plots over environment steps: success, groups, divergence, spread."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {"svg.hashsalt": "grpo_ros", "svg.fonttype": "none", "font.size": 9.5}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(10.0, 6.4), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(2, 2)
        for draw, axis in zip((_success, _groups, _divergence, _spread), axes.flat, strict=True):
            draw(axis, run)
            axis.set_xlabel("environment steps")
            axis.grid(alpha=0.25, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
            axis.xaxis.set_major_formatter(step_label)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _success(axis: Any, run: RunFiles) -> None:
    """Draw the curve's success with its Wilson band, sampled success, and held-out results."""
    train = run.series("train_success")
    if train:
        axis.plot(*zip(*train, strict=True), color=GREY, linewidth=0.9, label="while exploring")
    curve = run.series("eval_success", "eval_low", "eval_high")
    if curve:
        steps, rate, low, high = zip(*curve, strict=True)
        axis.fill_between(steps, low, high, color=BLUE, alpha=0.18, linewidth=0)
        axis.plot(steps, rate, color=BLUE, linewidth=1.6, label="deployed action, 95 % band")
    for name, steps_key in (("start", None), ("final", "env_steps")):
        result = run.evaluation if name == "final" else run.evaluation.get("start", {})
        if not result.get("episodes"):
            continue
        rate, (lower, upper) = result["successes"] / result["episodes"], result["wilson_95"]
        x = run.evaluation.get(steps_key, 0) if steps_key else 0
        axis.errorbar(
            [x],
            [rate],
            [[max(0.0, rate - lower)], [max(0.0, upper - rate)]],
            color=ORANGE,
            marker="o",
            markersize=5,
            capsize=3,
            linestyle="",
            label="held-out" if name == "final" else None,
        )
    axis.set_ylim(-0.02, 1.02)
    axis.set_title("Success")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, loc="lower right", fontsize=8.5)


def _groups(axis: Any, run: RunFiles) -> None:
    """Draw which share of groups teaches: all failed, mixed, all succeeded."""
    rows = run.series("all_fail_fraction", "all_success_fraction")
    if rows:
        steps, fail, success = zip(*rows, strict=True)
        mixed = [max(0.0, 1.0 - f - s) for f, s in zip(fail, success, strict=True)]
        axis.stackplot(
            steps,
            fail,
            mixed,
            success,
            colors=(RED, GREY, GREEN),
            alpha=0.75,
            labels=("all failed", "mixed: these teach", "all succeeded"),
        )
        axis.legend(frameon=True, framealpha=0.85, loc="upper right", fontsize=8.5)
    axis.set_ylim(0.0, 1.0)
    axis.set_title("Groups by outcome")


def _divergence(axis: Any, run: RunFiles) -> None:
    """Draw the divergence per update and the learning rate that follows it."""
    divergence = run.series("approx_kl")
    if divergence:
        axis.plot(*zip(*divergence, strict=True), color=BLUE, linewidth=1.0)
    axis.set_ylabel("approx. KL, nats", color=BLUE)
    rate = run.series("learning_rate")
    if rate:
        other = axis.twinx()
        other.plot(*zip(*rate, strict=True), color=ORANGE, linewidth=1.0)
        other.set_yscale("log")
        other.set_ylabel("learning rate", color=ORANGE)
        other.spines[["top"]].set_visible(False)
    axis.set_title("Size of updates")


def _spread(axis: Any, run: RunFiles) -> None:
    """Draw how different the actions in a group are, and the entropy."""
    diversity = run.series("diversity")
    if diversity:
        axis.plot(*zip(*diversity, strict=True), color=GREEN, linewidth=1.2)
    axis.set_ylabel("action spread in a group", color=GREEN)
    axis.set_ylim(bottom=0.0)
    entropy = run.series("entropy")
    if entropy:
        other = axis.twinx()
        other.plot(*zip(*entropy, strict=True), color=GREY, linewidth=1.0)
        other.set_ylabel("entropy of a step, nats", color=GREY)
        other.spines[["top"]].set_visible(False)
    axis.set_title("Exploration")


def step_label(value: float, _: int) -> str:
    """Return a tick of an axis of steps, as 250 k or 1.5 M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if abs(value) >= 1e3 else f"{value:g}"
