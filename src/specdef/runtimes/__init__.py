"""Programs that run model weights, and what a locked model computes in each of them."""
