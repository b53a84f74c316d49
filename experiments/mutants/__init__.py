"""Deliberate faults of single tokens in a part of the library: how many of them does a test see?"""
