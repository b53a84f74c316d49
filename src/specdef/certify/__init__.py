"""Grids of attacks, their results, and the verdict."""
