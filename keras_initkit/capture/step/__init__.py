"""The measured training step, whatever the backend."""
