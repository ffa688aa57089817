"""Files of a GR00T checkpoint: read as strangers' files, and written as tiny ones."""
