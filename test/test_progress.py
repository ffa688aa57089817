"""What is shown of a run: durations, lines, throttling, the last line."""

import io

import pytest

from grpo_ros.progress import ProgressBar, ProgressLines
from grpo_ros.report.summary import duration, progress_line, summary_line
from grpo_ros.training.observer import Progress, RunSummary

TRAINING = Progress("training", 250, 1000, 0.5, (0.4, 0.6), 185.0, 12345.6)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (65, "1 min 05 s"),
        (3599, "59 min 59 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text


def test_a_progress_line_tells_success_speed_and_time_left():
    assert progress_line(TRAINING) == (
        "training  25%, success 0.50 [0.40, 0.60], 12,346 steps/s, 3 min 05 s left"
    )
    assert progress_line(Progress("cloning", 0, 0)) == "cloning 100%"


def test_lines_are_throttled_but_messages_are_not():
    out = io.StringIO()
    with ProgressLines(out) as lines:
        for iteration in range(5):
            lines.on_iteration({"iteration": iteration}, TRAINING)
        lines.on_message("saved")
    assert out.getvalue().splitlines() == [f"iteration 0: {progress_line(TRAINING)}", "saved"]


def test_a_bar_takes_progress_and_lines_with_brackets(capsys):
    with ProgressBar() as bar:
        bar.on_progress(Progress("cloning", 3, 10))
        bar.on_iteration({"iteration": 1}, TRAINING)
        bar.on_message("success [0.1, 0.2]")
    assert "success [0.1, 0.2]" in capsys.readouterr().out


def test_the_last_line_names_what_was_written():
    evaluation = {"successes": 9, "episodes": 10, "wilson_95": [0.596, 0.982]}
    files = {"policy": "r/policy.onnx", "evaluation": "r/e.json", "checkpoint": "r/c"}
    line = summary_line(RunSummary("finished", "r", files, evaluation))
    assert line == (
        "finished: success 0.900 [0.596, 0.982] (9/10 held-out episodes); "
        "wrote r/policy.onnx r/e.json"
    )
    stopped = summary_line(RunSummary("stopped", "r", {"checkpoint": "r/c"}, {}))
    assert stopped == "interrupted, resume with resume:=r (or resume:=auto); wrote r/c"
