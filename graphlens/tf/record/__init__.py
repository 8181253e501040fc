"""Recording: one opened function is run, and what it did is written into a capture."""
