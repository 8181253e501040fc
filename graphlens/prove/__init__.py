"""Apply each fix to a copy, measure it against the original, and only then claim; free of TensorFlow."""

from graphlens.prove.prover import Outcome, Plan, prove
from graphlens.prove.runner import TrialRunner

__all__ = ["Outcome", "Plan", "TrialRunner", "prove"]
