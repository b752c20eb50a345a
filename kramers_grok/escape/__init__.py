"""When it leaves: first passage."""
