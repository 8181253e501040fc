"""Numbers that are wider than needed, or not as wide as the device likes them, and ops for training only."""
