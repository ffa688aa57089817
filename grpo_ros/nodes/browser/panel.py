"""The panel beside the scene, as HTML: what a run has reached, and what is wrong with it."""

from __future__ import annotations

import html
from collections.abc import Sequence

from grpo_ros.nodes.browser import charts
from grpo_ros.nodes.browser.run_state import OK, WARN, RunState, Success

AMBER = "#d29922"
COLOURS = {OK: charts.GOOD, WARN: AMBER}
"""By the level of a status; any other is red."""
TITLES = {
    "periods": "control periods",
    "missed_periods": "missed periods",
    "tracking_error": "tracking error",
    "inference_ms.p50": "inference, median",
}


def panel_html(state: RunState, now_s: float, problem: str = "") -> str:
    """Return all of the panel but the camera's picture; `problem`: of the scene."""
    sections = [_head(state, now_s), *_notes(state, now_s)]
    if problem:
        sections.append(_note(problem, AMBER))
    if state.success is not None:
        sections.append(_success(state))
    if state.curve or state.rollouts:
        legend = _key(charts.ACCENT, "evaluated") + _key(charts.EVEN, "rollouts")
        sections.append(
            _section("Success over steps", charts.curve(state.curve, state.rollouts), legend)
        )
    if state.rewards:
        note = f"{sum(state.rewards)} rollouts"
        sections.append(_section("Rewards", charts.histogram(state.rewards), note))
    if facts := _facts(state):
        sections.append(_table(facts))
    style = f"padding:0.2em 0.9em 0.6em;font-size:0.9em;line-height:1.5;color:{charts.INK}"
    return f'<div id="grpo-ros" style="{style}">{"".join(sections)}</div>'


def interval_text(success: Success) -> str:
    """Return the interval, e.g. [0.912, 0.944]."""
    return f"[{success.low:.3f}, {success.high:.3f}]"


def _head(state: RunState, now_s: float) -> str:
    if not state.kind:
        return _line(_dot(charts.FAINT) + "waiting for a learner or a policy server")
    is_quiet = state.is_quiet(now_s)
    colour = charts.FAINT if is_quiet else COLOURS.get(state.level, charts.BAD)
    parts = [state.run, state.phase, "" if state.state == "running" else state.state]
    if state.phase == "training":
        parts[1] = f"iteration {state.iteration}"
    text = _dot(colour) + f"<b>{html.escape(' · '.join(filter(None, dict.fromkeys(parts))))}</b>"
    left = f"{html.escape(state.time_left)} left" if state.time_left else ""
    bar = _bar(state.share_done) if state.kind == "training" else ""
    return _line(text, left) + bar


def _notes(state: RunState, now_s: float) -> list[str]:
    found = []
    if state.is_quiet(now_s):
        found.append(_note("nothing has come from it for some seconds", charts.FAINT))
    if state.alarm:
        found.append(_note(state.alarm, COLOURS.get(state.level, charts.BAD)))
    return found


def _success(state: RunState) -> str:
    success = state.success
    assert success is not None
    note = "95 % Wilson"
    if state.trials:
        note = f"{sum(state.trials.values())} of {len(state.trials)} episodes, 95 % Wilson"
    number = (
        f'<span style="font-size:2.5em;font-weight:650;line-height:1.2;color:#fff">'
        f"{success.rate:.3f}</span> "
        f'<span style="font-size:1.15em">{interval_text(success)}</span>'
    )
    return _section("Success", number + charts.interval_bar(success), note)


def _facts(state: RunState) -> list[tuple[str, str]]:
    if state.kind == "training":
        facts = [
            ("iteration", f"{state.iteration}"),
            ("environment steps", f"{state.env_steps:,}"),
        ]
        if state.steps_per_s:
            facts.append(("speed", f"{state.steps_per_s:,.0f} steps/s"))
        if state.train_success is not None:
            facts.append(("success of rollouts", f"{state.train_success:.3f}"))
        return facts
    facts = [(TITLES[key], value) for key, value in state.tells.items()]
    return [(name, f"{value} ms" if "inference" in name else value) for name, value in facts]


def _section(title: str, body: str, note: str = "") -> str:
    head = _line(f'<span style="font-weight:600">{title}</span>', note)
    return f'<div style="margin-top:0.75em">{head}{body}</div>'


def _table(rows: Sequence[tuple[str, str]]) -> str:
    lines = "".join(
        f'<span style="color:{charts.FAINT}">{html.escape(name)}</span>'
        f'<span style="text-align:right">{html.escape(value)}</span>'
        for name, value in rows
    )
    style = (
        "display:grid;grid-template-columns:auto auto;margin-top:0.75em;padding-top:0.5em;"
        f"border-top:1px solid {charts.RULE};font-variant-numeric:tabular-nums"
    )
    return f'<div style="{style}">{lines}</div>'


def _line(text: str, note: str = "") -> str:
    small = f'<span style="color:{charts.FAINT};font-size:0.9em">{note}</span>' if note else ""
    style = "display:flex;justify-content:space-between;align-items:baseline;gap:0.5em"
    return f'<div style="{style}"><span>{text}</span>{small}</div>'


def _bar(share: float) -> str:
    return (
        f'<div style="height:3px;border-radius:2px;background:{charts.RULE};margin-top:0.35em">'
        f'<div style="height:3px;border-radius:2px;width:{100 * share:.1f}%;'
        f'background:{charts.GOOD}"></div></div>'
    )


def _note(text: str, colour: str) -> str:
    style = (
        f"margin-top:0.6em;padding:0.35em 0.6em;border-left:3px solid {colour};"
        "border-radius:3px;background:rgba(255,255,255,0.06)"
    )
    return f'<div role="alert" style="{style}">{html.escape(text)}</div>'


def _dot(colour: str) -> str:
    return f'<span style="color:{colour};margin-right:0.4em">●</span>'


def _key(colour: str, text: str) -> str:
    return f'<span style="color:{colour};margin-left:0.7em">━</span> {text}'
