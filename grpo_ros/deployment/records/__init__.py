"""What was deployed, how it came out, and what was commanded."""
