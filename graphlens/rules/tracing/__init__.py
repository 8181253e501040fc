"""What tracing left in the graph."""
