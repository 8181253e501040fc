"""Files to nouns: reads models, profiles and captures without TensorFlow."""
