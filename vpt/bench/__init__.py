"""What prompts cost, timed side by side."""
