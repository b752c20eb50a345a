"""Rates by potential theory: the capacity of a saddle and its soft modes over the weight of the trap."""
