"""Where groups start: at initial states, on the way of rollouts, along demonstrations."""
