"""One frozen model in memory, and any number of its prompts over HTTP."""
