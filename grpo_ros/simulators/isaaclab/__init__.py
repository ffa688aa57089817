"""Isaac Lab 3.0 as an engine: kit-less on Newton, or PhysX under Isaac Sim's Kit."""
