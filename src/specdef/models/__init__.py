"""Kinds of models: loading, batches, loss, outputs, utility."""
