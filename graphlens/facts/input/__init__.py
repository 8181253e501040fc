"""Input pipelines: what steps waited for them, which stage limits them, and what the stages did."""
