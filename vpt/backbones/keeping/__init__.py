"""What is computed once for each input, and kept."""
