"""What prediction tracks of a tensor, and what is done with it whatever layer does it."""
