"""What needs TensorFlow; only child processes, and whoever records a live function, import it."""
