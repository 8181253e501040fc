"""A program that somebody else runs: its calls are watched, and a window of them is recorded."""
