"""One simulated robot behind a robot's interfaces, and what stands in its scene."""
