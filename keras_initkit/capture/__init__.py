"""How a model's tensors are read."""
