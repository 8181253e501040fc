"""Collectors: each records one thing about a program while it runs (see ``loaders.capture.collecting``)."""
