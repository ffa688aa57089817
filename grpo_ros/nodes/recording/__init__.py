"""The black box, bags, and their replay."""
