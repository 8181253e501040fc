"""Apply each fix to a copy, measure it against the original, and only then claim; free of TensorFlow."""

from graphlens.prove.experiment import Plan
from graphlens.prove.prover import Outcome, prove
from graphlens.prove.runner import TrialRunner

__all__ = ["Outcome", "Plan", "TrialRunner", "prove"]
