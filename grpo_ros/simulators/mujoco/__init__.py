"""MuJoCo as an engine: `mujoco.rollout` threads, the embedded default."""
