"""What a rule is tested with: graphs and times written as text, and files of cases.

>>> from graphlens.rules import find
>>> from graphlens.testing import check_page
>>> check_page(find("GL404"))  # raises where the page's bad example is not found, or its good one is
"""

from graphlens.testing.cases import Case, cases_in, check_case, check_page
from graphlens.testing.sketch import sketch

__all__ = ["Case", "cases_in", "check_case", "check_page", "sketch"]
