"""The kinds of intervention, one module each."""
