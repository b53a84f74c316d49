"""Families of files of weights, one a file: see `specdef.models.bare`."""
