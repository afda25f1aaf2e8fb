"""Many prompts on one frozen model: one of them at a time, or each sample of a batch its own."""

from vpt.tasks.library.folder import open_library, prompt_files, prompt_files_or_why
from vpt.tasks.library.library import PromptLibrary

__all__ = ["PromptLibrary", "open_library", "prompt_files", "prompt_files_or_why"]
