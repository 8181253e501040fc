"""``python -m graphlens``: the same as the command ``graphlens``."""

import sys

from graphlens.cli import main

sys.exit(main())
