"""What may be declared in a study of escapes, and what configurations a declaration stands for."""
