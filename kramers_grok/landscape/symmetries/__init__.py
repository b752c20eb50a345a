"""Which transformations leave an energy alone, what they say of its zero modes, and which sets no sample leaves."""
