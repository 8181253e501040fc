"""Probing: Grappler and XLA are asked about graphs that nobody runs."""
