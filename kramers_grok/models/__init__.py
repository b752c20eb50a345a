"""What moves: replica-batched networks and their data."""
