"""Other people's libraries taught about locks."""
