"""Attacks on a model: fine-tuning in all its forms."""
