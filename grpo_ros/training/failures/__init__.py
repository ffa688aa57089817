"""Failed rollouts: kept exactly, replayed bit for bit, and branched."""
