"""What is asked: metadata columns, labels, units of independence."""
