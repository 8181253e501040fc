"""Shapes of graphs that rules look for, and what experiments can find out about them."""
