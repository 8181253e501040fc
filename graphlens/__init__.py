"""GraphLens: where a TensorFlow step spends its time, why, and what would make it faster."""
