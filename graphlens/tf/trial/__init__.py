"""Trying: edits are applied to a copy of the target, which is compared with the original and timed."""
