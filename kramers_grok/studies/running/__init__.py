"""Independent cells, where they run, and what happens when a process dies."""
