"""What compensable pairs exist in each model family, as data, and how they bind to a checkpoint."""
