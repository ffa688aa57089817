"""Tasks: initial states, verified outcomes, scores, rewards and demonstrators."""
