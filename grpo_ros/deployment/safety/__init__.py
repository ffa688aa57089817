"""The safety gate: the only way to the wire, and what it is made of."""
