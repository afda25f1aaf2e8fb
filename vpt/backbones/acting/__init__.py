"""Hooks at work: how each kind of site acts in a forward."""
