"""Captures: the names of their parts, written by whoever records and read by whoever judges."""
