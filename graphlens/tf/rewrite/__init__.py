"""Edits applied to a copy of a function: extract it, rewrite it, build it again, write it as a SavedModel."""

from graphlens.tf.rewrite.building import build
from graphlens.tf.rewrite.declaring import Rewrite, rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.export import export, write_saved_model
from graphlens.tf.rewrite.program import Program, extract, output_names, probing
from graphlens.tf.rewrite.registry import apply, edit_names

__all__ = [
    "Draft",
    "Program",
    "Rewrite",
    "apply",
    "build",
    "edit_names",
    "export",
    "extract",
    "named",
    "output_names",
    "probing",
    "rewrite",
    "write_saved_model",
]
