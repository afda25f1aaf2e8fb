"""What raw input looks like, and how files become it."""
