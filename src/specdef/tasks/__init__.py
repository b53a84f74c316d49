"""What an attacker wants: samples to train on, a score in [0, 1], a target."""
