"""The tests' helpers for nodes, for what is measured over ROS."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("nodes", "export"):
    sys.path.append(str(Path(__file__).resolve().parents[1] / "test" / folder))
