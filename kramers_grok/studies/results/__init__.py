"""Finished cells as one labelled tree, and what they say in words."""
