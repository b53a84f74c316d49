"""Attacks that rewrite weights and train nothing."""
