"""The report of a run: one HTML file with curves, results and films."""

from grpo_ros.report.html import write_report
from grpo_ros.report.summary import summary_line

__all__ = ["summary_line", "write_report"]
