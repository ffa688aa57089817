"""Which algorithm for which task: studies, their statistics and their report."""
