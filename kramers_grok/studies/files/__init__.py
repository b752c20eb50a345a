"""Files of studies: there whole or not at all, checked when they are read, locked while they are written."""
