"""Demonstrations on data that ship with the package."""
