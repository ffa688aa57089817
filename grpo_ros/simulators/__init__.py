"""Simulators: batched environments with exact snapshots."""
