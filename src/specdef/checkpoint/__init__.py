"""Safetensors folders: strict headers, streaming rewrite, public manifest, private key."""
