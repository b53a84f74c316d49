"""Where cells run: in processes of this machine, or on Ray. Both give the same results."""
