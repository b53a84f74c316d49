"""Locks: a plan is data, applying it streams the checkpoint."""
