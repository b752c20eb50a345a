"""Grids of independent cells, their files and the jobs that make figures of them."""
