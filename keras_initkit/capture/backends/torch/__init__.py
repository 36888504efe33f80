"""Capture on the PyTorch backend."""
