"""The replicas of a distributed step: what each does, and what it waits for."""
