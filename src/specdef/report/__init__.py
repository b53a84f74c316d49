"""Tables and plots of results that already exist; nothing here computes."""
