"""How rules are named on the command line: by code, by the beginning of codes, or by name."""

from __future__ import annotations


def is_meant(selector: str, code: str, name: str) -> bool:
    """Tell whether ``selector`` names the rule with this code and name.

    >>> is_meant("GL203", "GL203", "unfolded-affine"), is_meant("GL2", "GL203", "unfolded-affine")
    (True, True)
    >>> is_meant("unfolded-affine", "GL203", "unfolded-affine"), is_meant("unfolded", "GL203", "unfolded-affine")
    (True, False)
    """
    return selector == name or code.startswith(selector)
