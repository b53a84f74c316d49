"""One defence a file, found by its name."""
