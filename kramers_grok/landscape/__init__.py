"""Barriers of networks without a closed form: minima, paths between them, saddles and their certificates."""
