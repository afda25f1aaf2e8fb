"""What is found out about a model by looking at it."""
