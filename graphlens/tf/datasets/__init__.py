"""Datasets: read as graphs, as written and as TensorFlow rewrites them, and changed as copies."""
