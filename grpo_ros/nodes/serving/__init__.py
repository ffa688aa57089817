"""What the policy server is made of."""
