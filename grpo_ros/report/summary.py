"""One line on how far a run is, or on how it ended and what it wrote."""

from __future__ import annotations

from grpo_ros.training.checkpoint import has_checkpoint
from grpo_ros.training.observer import Progress, RunSummary
from grpo_ros.training.run_directory import RunDirectory


def summary_line(summary: RunSummary) -> str:
    """Return the last line of a training command: result, and the files that were written."""
    if summary.state != "finished":
        return (
            f"interrupted, resume with resume:={summary.run} (or resume:=auto); "
            f"wrote {summary.files.get('checkpoint', summary.run)}"
        )
    evaluation = summary.evaluation
    low, high = evaluation["wilson_95"]
    successes, episodes = evaluation["successes"], evaluation["episodes"]
    files = [
        summary.files[kind] for kind in ("policy", "evaluation", "report") if kind in summary.files
    ]
    return (
        f"finished: success {successes / max(1, episodes):.3f} [{low:.3f}, {high:.3f}] "
        f"({successes}/{episodes} held-out episodes); wrote {' '.join(files)}"
    )


def interrupted_line(run: RunDirectory | None) -> str:
    """Return the last line of a training command that a signal ended at once; None: no run yet."""
    if run is None or not has_checkpoint(run.checkpoints):
        return "interrupted before there was anything to save"
    return (
        "interrupted at once, without what came after the last checkpoint; "
        f"resume with resume:={run.path} (or resume:=auto)"
    )


def progress_line(progress: Progress) -> str:
    """Return phase, share done, success with its interval, speed and time left."""
    share = progress.done / progress.total if progress.total else 1.0
    parts = [f"{progress.phase} {share:4.0%}"]
    if progress.success is not None:
        text = f"success {progress.success:.2f}"
        if progress.wilson_95 is not None:
            text += f" [{progress.wilson_95[0]:.2f}, {progress.wilson_95[1]:.2f}]"
        parts.append(text)
    if progress.steps_per_s is not None:
        parts.append(f"{progress.steps_per_s:,.0f} steps/s")
    if progress.remaining_s is not None:
        parts.append(f"{duration(progress.remaining_s)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time span such as 42 s, 3 min 05 s or 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
