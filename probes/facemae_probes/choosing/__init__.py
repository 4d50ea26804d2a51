"""Choosing within a fold: the plan, fits in one form, judgements, predictions."""
