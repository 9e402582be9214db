"""One worker, the ops listener and what composes them."""
