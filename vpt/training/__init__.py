"""From examples to a fitted model: the loop, what it counts, keeps and reports."""
