"""Tests that look at a report with a browser."""
