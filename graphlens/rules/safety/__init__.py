"""What a graph does besides computing."""
