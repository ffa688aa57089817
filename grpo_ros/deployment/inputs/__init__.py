"""Stamped inputs, checked, as one observation."""
