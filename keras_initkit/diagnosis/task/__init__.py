"""What a model is trained for: its heads, losses, labels, and remedies for what does not fit."""
