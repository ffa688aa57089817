"""A report shows what the run's files say, and needs nothing beside itself."""

import json
import re

import pytest

from grpo_ros.report import write_report
from grpo_ros.report.run_files import read_run

RESULT = {"successes": 930, "episodes": 1000, "wilson_95": [0.9125, 0.9443]}
START = {"successes": 450, "episodes": 1000, "wilson_95": [0.4194, 0.4810]}
EVALUATION = {
    **RESULT,
    "start": START,
    "env_steps": 900_000,
    "gradient_steps": 1234,
    "train_seconds": 95.0,
    "seed": 3,
    "versions": {"mujoco": "3.12.0"},
}
CONTRACT = {
    "instruction": "Pick <it> up.",
    "embodiment": "franka_fr3",
    "chunk_size": 4,
    "num_executed": 4,
    "control_rate_hz": 20.0,
    "horizon": 60,
    "observation": [{"name": "cube_from_tip", "shape": [3], "unit": "m"}],
    "action": [{"name": "arm", "kind": "cartesian_delta", "names": ["x", "y"]}],
    "randomisation": {"enabled": False},
}


def _metrics(iteration):
    entry = {
        "iteration": iteration,
        "env_steps": iteration * 1000,
        "train_success": 0.4 + 0.01 * iteration,
        "all_fail_fraction": 0.4,
        "all_success_fraction": 0.2,
        "approx_kl": 0.1,
        "learning_rate": 6e-4,
        "entropy": -4.0,
        "diversity": 0.1,
    }
    if iteration % 5 == 0:
        entry.update(eval_success=0.5, eval_low=0.4, eval_high=0.6)
    return entry


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run."""
    (tmp_path / "config.yaml").write_text(
        "task: pick_place\nalgorithm: grpo\npolicy: gaussian\nsimulator: mujoco\nseed: 3\n"
    )
    (tmp_path / "contract.json").write_text(json.dumps(CONTRACT))
    (tmp_path / "evaluation.json").write_text(json.dumps(EVALUATION))
    lines = [json.dumps(_metrics(i)) for i in range(20)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    timing = {"iteration": 1, "collect_s": 60.0, "update_s": 5.0, "elapsed_s": 70.0}
    (tmp_path / "timing.jsonl").write_text(json.dumps(timing) + "\n")
    (tmp_path / "films").mkdir()
    for name in ("after", "before"):
        (tmp_path / "films" / f"{name}.webp").write_bytes(f"film {name}".encode())
    return tmp_path


def test_a_report_tells_results_with_intervals(run):
    text = write_report(run).read_text()
    for part in (
        "93.0 %",
        "[91.2, 94.4] %",
        "45.0 %",
        "[41.9, 48.1] %",
        "930 of 1000 episodes",
        "900,000",
        "1 min 35 s",
        "3.12.0",
        "cube_from_tip",
        "cartesian_delta: x, y",
        "policy gaussian",
    ):
        assert part in text, part


def test_a_report_needs_nothing_beside_itself(run):
    text = write_report(run).read_text()
    assert "<svg" in text and text.count("data:image/webp;base64,") == 2
    assert text.index("Before: ") < text.index("After: ")
    references = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert all(reference.startswith("data:") for reference in references)
    assert not re.search(r"@import|url\(http", text)


def test_what_a_file_says_cannot_become_markup(run):
    assert "Pick &lt;it&gt; up." in write_report(run).read_text()


def test_the_same_run_gives_the_same_report(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_an_unfinished_or_damaged_run_has_a_report_that_says_so(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(_metrics(0)) + '\n{"iteration": 1, "en')
    (tmp_path / "evaluation.json").write_text("{")
    text = write_report(tmp_path).read_text()
    assert "is not finished" in text and "No films" in text
    assert len(read_run(tmp_path).metrics) == 1


def test_missing_films_come_with_the_reason(run, monkeypatch):
    for film in (run / "films").iterdir():
        film.unlink()
    from grpo_ros.simulators.mujoco import renderer as mujoco_renderer

    monkeypatch.setattr(mujoco_renderer, "rendering_problem", lambda: "install libosmesa6")
    assert "No films: install libosmesa6." in write_report(run).read_text()
    (run / "config.yaml").write_text("film: false")
    assert "switched off" in write_report(run).read_text()
