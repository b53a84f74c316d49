"""What the weights, the outputs and the loss surface show."""
