"""A simulator that another process owns: what is said, how it travels, and who answers."""
