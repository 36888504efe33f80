"""What rules know of a model: its kernels, what follows them, and how far their scale reaches."""
