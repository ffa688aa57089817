"""write_report: a run's report.html, which needs nothing beside itself."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from grpo_ros.files import write_atomically
from grpo_ros.report.curves import curves
from grpo_ros.report.run_files import RunFiles, read_run
from grpo_ros.report.summary import duration

PAGE = Path(__file__).with_name("page.html")
FILM_CAPTIONS = {
    "before": "Before: where learning starts",
    "after": "After: the trained policy",
}


def write_report(run: Path | str) -> Path:
    """Write `report.html` from the files of a run's folder; return its path.

    Absent files leave their part out, with a note: a report of an unfinished run is possible.
    """
    path = Path(run)
    files = read_run(path)
    config = files.config
    title = f"{config.get('task', path.name)}: {config.get('algorithm', '')}".rstrip(": ")
    page = Template(PAGE.read_text()).substitute(
        title=escape(title),
        subtitle=escape(_subtitle(files)),
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in _notes(files)),
        tiles=_tiles(files),
        curves=curves(files),
        films=_films(files),
        results=_results(files),
        contract=_contract(files.contract),
        versions=_table(files.evaluation.get("versions", {}).items()),
        config=escape(_text(path / "config.yaml")),
    )
    target = path / "report.html"
    write_atomically(target, page.encode())
    return target


def _subtitle(files: RunFiles) -> str:
    config = files.config
    parts = [
        f"{name} {config[name]}" for name in ("policy", "simulator", "seed") if name in config
    ]
    return " · ".join([*parts, files.path.name])


def _notes(files: RunFiles) -> list[str]:
    notes = []
    if not files.evaluation:
        notes.append("This run is not finished: there is no held-out result yet.")
    if not files.metrics:
        notes.append("There are no metrics.")
    return notes


def _tiles(files: RunFiles) -> str:
    tiles = []
    evaluation = files.evaluation
    if evaluation:
        tiles.append((_rate(evaluation), f"success {_interval(evaluation)}"))
        if start := evaluation.get("start"):
            tiles.append((_rate(start), f"at the start {_interval(start)}"))
        tiles.append((f"{evaluation.get('env_steps', 0):,}", "environment steps"))
        if "train_seconds" in evaluation:
            tiles.append((duration(evaluation["train_seconds"]), "of training"))
    inner = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label in tiles
    )
    return f'<div class="tiles">{inner}</div>'


def _films(files: RunFiles) -> str:
    if not files.films:
        return f'<p class="note">{escape(_no_film(files))}</p>'
    figures = []
    for name in sorted(
        files.films, key=lambda name: (name not in FILM_CAPTIONS, name != "before")
    ):
        data = base64.b64encode(files.films[name]).decode()
        caption = FILM_CAPTIONS.get(name, name)
        figures.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/webp;base64,{data}">'
            f"<figcaption>{escape(caption)}, on the same held-out initial states. Green frame: "
            "the outcome was verified; red: it was not.</figcaption></figure>"
        )
    return "".join(figures)


def _no_film(files: RunFiles) -> str:
    if files.config.get("film") is False:
        return "No films: switched off (film = false)."
    if files.config.get("simulator", "mujoco") == "mujoco":
        from grpo_ros.simulators.mujoco.renderer import rendering_problem

        if problem := rendering_problem():
            return f"No films: {problem}."
    return "No films were made."


def _results(files: RunFiles) -> str:
    evaluation = files.evaluation
    rows: list[tuple[str, str]] = []
    for label, result in (("at the end", evaluation), ("at the start", evaluation.get("start"))):
        if result:
            count = f"{result['successes']} of {result['episodes']} episodes"
            rows.append((f"Held-out, {label}", f"{_rate(result)} {_interval(result)}, {count}"))
    for key, label in (
        ("env_steps", "Environment steps"),
        ("gradient_steps", "Gradient steps"),
        ("seed", "Seed"),
        ("heldout_sha256", "SHA-256 of the held-out initial states"),
    ):
        if key in evaluation:
            value = evaluation[key]
            rows.append((label, f"{value:,}" if isinstance(value, int) else str(value)))
    if "train_seconds" in evaluation:
        rows.append(("Training time", duration(evaluation["train_seconds"])))
    if files.timing:
        shares = {
            name: sum(float(entry.get(f"{name}_s", 0.0)) for entry in files.timing)
            for name in ("collect", "update")
        }
        rows.append(("of which collecting", duration(shares["collect"])))
        rows.append(("of which updating", duration(shares["update"])))
    if files.metrics:
        rows.append(("Iterations", str(files.metrics[-1].get("iteration", len(files.metrics)))))
    return _table(rows)


def _contract(contract: Mapping[str, Any]) -> str:
    if not contract:
        return "<p>None was written.</p>"
    rows = [
        ("Instruction", contract.get("instruction", "")),
        ("Robot", contract.get("embodiment", "")),
        (
            "Decisions",
            f"{contract.get('chunk_size')} actions at {contract.get('control_rate_hz')} Hz, "
            f"{contract.get('num_executed')} executed; at most {contract.get('horizon')} periods",
        ),
    ]
    rows += [
        (f"Observes {f['name']}", f"{tuple(f['shape'])} {f.get('unit', '')}".strip())
        for f in contract.get("observation", ())
    ]
    rows += [
        (f"Commands {f['name']}", f"{f['kind']}: {', '.join(f['names'])}")
        for f in contract.get("action", ())
    ]
    randomisation = contract.get("randomisation") or {}
    is_random = bool(randomisation.get("enabled"))
    rows.append(("Randomised in training", "yes" if is_random else "no"))
    return _table(rows)


def _table(rows: Iterable[tuple[object, object]]) -> str:
    cells = "".join(
        f"<tr><th>{escape(str(key))}</th><td>{escape(str(value))}</td></tr>" for key, value in rows
    )
    return f"<table>{cells}</table>"


def _rate(result: Mapping[str, Any]) -> str:
    return f"{100.0 * result['successes'] / max(1, result['episodes']):.1f} %"


def _interval(result: Mapping[str, Any]) -> str:
    low, high = result["wilson_95"]
    return f"[{100.0 * low:.1f}, {100.0 * high:.1f}] %"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
