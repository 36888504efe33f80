"""How each kind of layer and operation changes a signal, and the gradient that comes back."""
