"""GR00T N1.7: reading its checkpoints, its images and its prompts.

Nothing here is imported by the rest of the package before a GR00T checkpoint is asked for.
"""
