"""Convert a URDF to USD: python -m grpo_ros.simulators.isaaclab.convert ROBOT.urdf FOLDER

A process of its own: the importer needs USD's schema registry as it is before Isaac Lab has loaded
it, and reports to the terminal as it pleases. The file FOLDER/usd_path names what was made.
"""

from __future__ import annotations

import sys
from pathlib import Path

MARK = "usd_path"


def main(urdf: str, folder: str) -> None:
    """Convert, with a fixed base and a position drive on every joint."""
    from isaaclab.sim.converters import UrdfConverter, UrdfConverterCfg

    gains = UrdfConverterCfg.JointDriveCfg.PDGainsCfg(stiffness=1.0, damping=1.0)
    drive = UrdfConverterCfg.JointDriveCfg(target_type="position", gains=gains)
    converter = UrdfConverter(
        UrdfConverterCfg(asset_path=urdf, usd_dir=folder, fix_base=True, joint_drive=drive)
    )
    made = Path(converter.usd_path).resolve().relative_to(Path(folder).resolve())
    (Path(folder) / MARK).write_text(str(made))


if __name__ == "__main__":
    main(*sys.argv[1:])
