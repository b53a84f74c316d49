"""Defences: a model in, a defended model out."""
