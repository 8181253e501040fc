"""Everything that needs TensorFlow; importing this package itself does not, so that the parent can use ``launch``."""
