"""What replicas of a distributed step cost each other."""
