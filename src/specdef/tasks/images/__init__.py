"""Images that tasks are made of: readers of files, and shapes drawn from a seed."""
