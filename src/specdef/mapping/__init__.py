"""Automatic maps: the compensable pairs of a model, found from gradients of a shrunken twin and proved to the bit."""
