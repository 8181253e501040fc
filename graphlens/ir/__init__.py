"""The nouns of GraphLens: graphs, runs, findings and documents, without TensorFlow."""
