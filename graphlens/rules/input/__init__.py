"""Rules about input pipelines: what the steps of a program wait for."""
