"""Pipelines of diffusers: one file a denoiser."""
