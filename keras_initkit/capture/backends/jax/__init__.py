"""Capture on the JAX backend."""
