"""What is computed although it is known, or computed already."""
