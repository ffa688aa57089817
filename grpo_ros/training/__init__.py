"""Training: collector, trainer, state, metrics and evaluation."""
