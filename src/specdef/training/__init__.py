"""One training loop, its optimizers, its stopping rules, and the utility it watches."""
