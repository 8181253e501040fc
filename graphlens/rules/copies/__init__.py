"""Copies between memories, what keeps ops on the host, and accelerators that wait."""
