"""A biased model, measured and corrected by a prompt."""
