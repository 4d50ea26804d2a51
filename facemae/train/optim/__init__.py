"""The update: AdamW, its schedule, and what is done about updates that stand out."""
