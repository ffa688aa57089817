"""The report of a study: report.html and report.md, which need nothing else; plots/ for reuse."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from grpo_ros.experiments import plots, tables
from grpo_ros.experiments.findings import (
    CONTROL,
    GROUP_ARMS,
    GRPO,
    PPO,
    conclusion_on_exact_states,
    exact_state_arms,
)
from grpo_ros.experiments.results import Results
from grpo_ros.files import write_atomically

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2125; max-width: 1180px;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2.2rem } h3 { font-size: 1.05rem }
table { border-collapse: collapse; margin: .8rem 0; font-size: 13px }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #dde1e4;
  vertical-align: top }
th { color: #4a5258 } svg { max-width: 100%; height: auto }
.note { background: #fff6e0; border-left: 4px solid #d9a441; padding: .6rem .9rem }
"""


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading of level 1, 2 or 3."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Plain text; a note stands out."""

    text: str
    is_note: bool = False


@dataclasses.dataclass(frozen=True)
class Rows:
    """A table; the first row is its head."""

    rows: tables.Table


@dataclasses.dataclass(frozen=True)
class Picture:
    """An SVG, and what its file is called."""

    name: str
    svg: str
    caption: str


Block = Heading | Paragraph | Rows | Picture


def write_report(results: Results, folder: Path, memory: tables.Table | None = None) -> list[Path]:
    """Write report.html, report.md and each plot's SVG into a folder; return the reports' paths.

    Args:
        results: of a study.
        folder: made if it is absent.
        memory: rows of what training takes with and without a critic, the first the head.
    """
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    blocks = list(_blocks(results, memory))
    html, markdown = folder / "report.html", folder / "report.md"
    write_atomically(html, _html(results.study.title, blocks).encode())
    write_atomically(markdown, _markdown(blocks).encode())
    for block in blocks:
        if isinstance(block, Picture):
            write_atomically(folder / "plots" / f"{block.name}.svg", block.svg.encode())
    return [html, markdown]


def _blocks(results: Results, memory: tables.Table | None) -> Iterator[Block]:
    study = results.study
    yield Heading(study.title, 1)
    if study.limits:
        yield Paragraph(study.limits, is_note=True)
    if results.missing:
        yield Paragraph(
            f"{len(results.missing)} of {len(results.missing) + len(results.runs)} runs are not "
            "finished; what is said here is of the others.",
            is_note=True,
        )
    yield from _method(results)
    yield Heading("What to use")
    yield Rows(tables.recommendation_table(results))
    yield Heading("What the field expects, and what was measured")
    yield Rows(tables.expectation_table(results))
    if memory:
        yield Heading("Memory, with and without a critic", 3)
        yield Rows(memory)
    evidence = tables.exact_state_table(results)
    if len(evidence) > 1:
        yield Heading("Exact states")
        yield Paragraph(conclusion_on_exact_states(results))
        yield Rows(evidence)
    for scenario in study.scenarios:
        if results.arms_on(scenario):
            yield from _scenario(results, scenario)
    decisions = tables.decision_table(results)
    if len(decisions) > 1:
        yield Heading("What hybrids decided")
        yield Rows(decisions)


def _method(results: Results) -> Iterator[Block]:
    study = results.study
    yield Paragraph(
        "Every arm of a task starts from the same clone of the same demonstrations, unless it is "
        "from scratch, has the same budget of environment steps, whatever it spends them on, and "
        "is measured on the same held-out initial states, which training cannot reach. "
        f"{_cloned(results)}Intervals are 95 %: Student's t over seeds, paired by seed where two "
        "arms are compared, but no narrower than their episodes allow; Wilson's for single runs. "
        "What one seed shows is known to within its episodes, not to within what another seed "
        "would have learned. Which arms are worse than the best, and which options better than "
        "their plain algorithm, is told by intervals that hold for all pairs of a task's arms at "
        "once (Tukey's, by the seeds that all of them have). Other intervals are not widened for "
        "being many: of twenty comparisons of equals one shows a lead by chance, and the best of "
        "several arms is measured a little too high. Steps to a success are those at which the "
        "curve first reaches it, between two of its points by a straight line; runs that never do "
        "count with their whole budget and are marked (<=, >=, ~), never dropped. A run ends "
        "early where all states of its curve succeed. The policy that is measured is the running "
        "average of iterates, or the last where averaging is off."
    )
    if study.tuning:
        yield Paragraph(f"Tuning: {study.tuning}")
    versions = sorted({f"{k} {v}" for run in results.runs for k, v in run.versions.items()})
    yield Paragraph(f"Made with {', '.join(versions)}." if versions else "No runs.")
    if results.command:
        yield Paragraph(f"Command: {results.command}")


def _cloned(results: Results) -> str:
    """Return what was measured of cloning alone."""
    if not any(run.arm == CONTROL for run in results.runs):
        return ""
    early = {
        run.scenario
        for run in results.runs
        if run.config.get("behaviour_cloning", {}).get("maximum_success", 1.0) < 1.0
    }
    told = "The control is cloned to the end. "
    if early:
        told += f"On {', '.join(sorted(early))} all others began from a clone that ended early. "
    return told


def _scenario(results: Results, scenario: str) -> Iterator[Block]:
    each, arms = results.study.scenarios[scenario], results.arms_on(scenario)
    difficulty = f", {each.difficulty}" if each.difficulty else ""
    steps = f"{each.env_steps:,} environment steps" if each.env_steps else "the preset's budget"
    yield Heading(f"{scenario} ({each.task}{difficulty}; {steps})")
    yield Rows(tables.success_table(results, scenario))
    exact = exact_state_arms(results)
    families = {
        "PPO and GRPO": [arm for arm in arms if arm in (PPO, *GROUP_ARMS)],
        "hybrids": [
            arm for arm in arms if arm not in (PPO, *GROUP_ARMS, CONTROL) and arm not in exact
        ],
        "exact states": [arm for arm in arms if arm in exact],
    }
    for family, members in families.items():
        if not members:
            continue
        extra = [arm for arm in (PPO, GRPO) if arm in arms and arm not in members]
        shown, name = [*extra, *members], family.replace(" ", "_")
        what, bands = f"Success of the deployed policy: {family}.", "Bands: all seeds."
        control = "Dotted: cloned to the end."
        if plots.is_crowded(shown):
            yield Picture(
                f"{scenario}_each_of_{name}",
                plots.each_option_plot(results, scenario, extra, members),
                f"{what} Each (green) by itself. {bands} {control}",
            )
            bands = "Means of seeds."
        yield Picture(
            f"{scenario}_{name}",
            plots.success_plot(results, scenario, shown),
            f"{what} {bands} {control}",
        )
    if any(results.of(scenario, arm) for arm in (PPO, *GROUP_ARMS)):
        yield Picture(
            f"{scenario}_groups",
            plots.group_plot(results, scenario),
            "Groups without a difference, success while exploring, and spread of actions.",
        )
    if results.of(scenario, GRPO):
        yield Picture(
            f"{scenario}_rewards",
            plots.reward_plot(results, scenario),
            "How rewards are distributed over groups.",
        )
    yield Heading("Single runs", 3)
    yield Rows(tables.seed_table(results, scenario))
    yield Heading("What training was like", 3)
    yield Rows(tables.group_table(results, scenario))


def _html(title: str, blocks: Sequence[Block]) -> str:
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
    ]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h{block.level}>{escape(block.text)}</h{block.level}>")
        elif isinstance(block, Paragraph):
            kind = ' class="note"' if block.is_note else ""
            parts.append(f"<p{kind}>{escape(block.text)}</p>")
        elif isinstance(block, Rows):
            parts.append(_html_table(block.rows))
        else:
            parts.append(
                f"<figure>{block.svg}<figcaption>{escape(block.caption)}</figcaption></figure>"
            )
    return "\n".join(parts)


def _html_table(rows: tables.Table) -> str:
    head, *body = rows
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body
    ]
    return f"<table><tr>{top}</tr>{''.join(lines)}</table>"


def _markdown(blocks: Sequence[Block]) -> str:
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Paragraph):
            parts.append(f"> {block.text}" if block.is_note else block.text)
        elif isinstance(block, Rows):
            parts.append(_markdown_table(block.rows))
        else:
            data = base64.b64encode(block.svg.encode()).decode()
            parts.append(f"![{block.caption}](data:image/svg+xml;base64,{data})")
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: tables.Table) -> str:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
