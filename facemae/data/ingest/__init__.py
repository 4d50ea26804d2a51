"""Source layouts: each module turns one into a list of samples to pack."""
