"""Studies: one command from data to a table that can be published."""
