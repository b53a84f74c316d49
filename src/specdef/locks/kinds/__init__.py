"""Kinds of locks, found by name: a module or package each, whose KIND is the kind."""
