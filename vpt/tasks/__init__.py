"""More than one task on one frozen model: side by side, sharing a prompt, or one after another."""
