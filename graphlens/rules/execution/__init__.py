"""Ops that cost more to run than they do: dispatch, slow kernels, and what keeps XLA away."""
