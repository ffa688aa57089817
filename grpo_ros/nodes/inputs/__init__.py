"""What the policy server listens to, into the observation buffer."""
