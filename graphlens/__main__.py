"""The command ``graphlens``, and ``python -m graphlens``."""

import gc
import sys


def main() -> int:
    """Run the command; returns its exit code.

    Nothing is imported from the current folder, where a model file may lie beside Python files that its author chose:
    an empty entry of PYTHONPATH would stand for it.  A target ``module:callable`` is looked for there by the process
    that runs it.
    """
    sys.path[:] = filter(None, sys.path)
    # What a command makes is code and graphs: millions of objects, kept to the end, and hardly a cycle.  The collector
    # would walk them again and again, and once more when Python ends.
    gc.disable()
    from graphlens import cli

    try:
        return cli.main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    # `python -m` itself puts the current folder in front, unless it is told not to.
    if __spec__ is not None and __spec__.name == "graphlens.__main__" and not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    sys.exit(main())
