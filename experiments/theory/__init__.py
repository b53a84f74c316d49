"""The papers' numerical checks of their theorems: Tables 9, 10, 11 and 29."""
