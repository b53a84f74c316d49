"""The kinds of utility, one file each."""
