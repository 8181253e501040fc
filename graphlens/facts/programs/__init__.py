"""The programs of a run: which there are, what they are called, and when each of them ran."""
