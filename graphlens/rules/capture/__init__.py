"""Whether the measurement can be trusted."""
