"""Opening: whatever the user points at becomes a function with inputs."""
