"""What several rewritings share: finding what a lock left in the weights, and computing what goes in its place."""
