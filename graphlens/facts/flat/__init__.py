"""Graphs with their functions inlined: how their ops are called, joined to those that ran, and what never changes."""
