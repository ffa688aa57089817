"""Convert a URDF or MJCF to USD: python -m grpo_ros.simulators.isaaclab.convert FILE FOLDER

A process of its own: the importer needs USD's schema registry as it is before Isaac Lab has loaded
it, and reports to the terminal as it pleases. The file FOLDER/usd_path names what was made.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

MARK = "usd_path"


def main(source: str, folder: str) -> None:
    """Convert, with a fixed base and a position drive on every joint."""
    converter: Any
    if source.endswith(".urdf"):
        from isaaclab.sim.converters import UrdfConverter, UrdfConverterCfg

        gains = UrdfConverterCfg.JointDriveCfg.PDGainsCfg(stiffness=1.0, damping=1.0)
        drive = UrdfConverterCfg.JointDriveCfg(target_type="position", gains=gains)
        converter = UrdfConverter(
            UrdfConverterCfg(asset_path=source, usd_dir=folder, fix_base=True, joint_drive=drive)
        )
    else:
        from isaaclab.sim.converters import MjcfConverter, MjcfConverterCfg

        converter = MjcfConverter(
            MjcfConverterCfg(asset_path=source, usd_dir=folder, fix_base=True)
        )
    made = Path(converter.usd_path).resolve().relative_to(Path(folder).resolve())
    (Path(folder) / MARK).write_text(str(made))


if __name__ == "__main__":
    main(*sys.argv[1:])
