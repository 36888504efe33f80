"""What a model takes: specifications, batches and labels."""
