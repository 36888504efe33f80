"""Capture on the TensorFlow backend."""
