"""What an operator can see of a worker: its metrics."""
