"""Studies of escapes: how a cell is measured, how precisely, and what it will take."""
