"""Copies between memories: which there were, why, and what devices did meanwhile."""
