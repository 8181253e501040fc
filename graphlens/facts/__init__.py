"""Derived, cached, pure facts about the evidence: what rules ask and reports show.  No TensorFlow, no files."""
