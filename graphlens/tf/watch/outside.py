"""What a script does outside of its process, as far as Python tells: files that it changes, hosts and programs.

Standard library only: it is told from the first line of a script on.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, Final

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DEVICES: Final = ("/dev/", "/proc/")
# Libraries ask for these while they are imported, and they change nothing.
_HARMLESS_PROGRAMS: Final = frozenset({"uname", "ldconfig", "/sbin/ldconfig", "lscpu", "gcc", "cc", "ld", "objdump"})

_NO_FOLDER: Final = sys.maxsize  # the event names none that is open

Tell = Callable[[str], None]


def watch(tell: Tell, *, own: str, caches: bool) -> None:
    """Tell of everything that the process is about to change or to reach outside of itself, in words.

    It cannot be undone, as Python has it.

    Parameters
    ----------
    tell
        Is called before it is done.
    own
        A folder in which anything may be done.
    caches
        Whether what libraries keep for themselves is left out: compiled modules, and what lies in hidden folders of
        the user's home.
    """
    known = homes(own, caches=caches)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        what = _DEEDS.get(event)
        if what is not None and (deed := what(arguments, known)):
            tell(deed)

    sys.addaudithook(hook)


Homes = tuple[str, ...]  # folders in which anything may be done, each with a separator at its end


def homes(own: str, *, caches: bool) -> Homes:
    """Return the folders in which anything may be done; the parameters are those of ``watch``."""
    # Not ``gettempdir``, which would look for a folder that the script may write to, by writing.
    named = [os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)]
    temporary = named or [tempfile.tempdir or "/tmp"]
    folders = [os.path.realpath(folder) for folder in (own, *temporary) if folder]
    if caches:
        home = os.path.expanduser("~")  # not ``Path.home``, which raises where the user of a container has none
        folders += [os.path.join(home, name) for name in (".cache", ".keras", ".config", ".nv", ".matplotlib")]
        folders += [os.environ[name] for name in ("XDG_CACHE_HOME", "KERAS_HOME", "MPLCONFIGDIR") if name in os.environ]
    return tuple(folder.rstrip(os.sep) + os.sep for folder in folders)


def is_outside(path: Any, homes: Homes, folder: int = -1) -> bool:
    """Whether a path names a file that others may care for; ``folder`` is the open one that it is in, if any."""
    if isinstance(path, int) or path is None:  # what is open already
        return False
    place = os.path.abspath(os.path.join(_opened_folder(folder), os.fsdecode(path)))
    if place.startswith(_DEVICES) or f"{os.sep}__pycache__" in place:
        return False
    return not (os.path.realpath(place) + os.sep).startswith(homes)


def _opened_folder(number: int) -> str:
    """Return the path of an open folder: what removes a tree of files names each by the folder that it is in."""
    if number < 0:
        return ""
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:  # another system, which has no such list
        return ""


def _opened(arguments: tuple[Any, ...], homes: Homes) -> str:
    path, mode, flags = arguments
    writes = (flags or 0) & _WRITING if isinstance(flags, int) else False
    if not (writes or (isinstance(mode, str) and set(mode) & set("wax+"))) or not is_outside(path, homes):
        return ""
    return f"writes the file '{os.fsdecode(path)}'"


def _changed(verb: str, *folders: int) -> Callable[[tuple[Any, ...], Homes], str]:
    """Return what says that the first paths are changed; ``folders`` are where each one's open folder is named."""

    def deed(arguments: tuple[Any, ...], homes: Homes) -> str:
        named = [(path, _folder(arguments, place)) for path, place in zip(arguments, folders, strict=False)]
        found = [path for path, folder in named if isinstance(path, (str, bytes)) and is_outside(path, homes, folder)]
        return f"{verb} '{os.fsdecode(found[0])}'" if found else ""

    return deed


def _folder(arguments: tuple[Any, ...], place: int) -> int:
    number = arguments[place] if place < len(arguments) else -1
    return number if isinstance(number, int) else -1


def _made_folder(arguments: tuple[Any, ...], homes: Homes) -> str:
    path = arguments[0]
    is_new = is_outside(path, homes, _folder(arguments, 2)) and not os.path.exists(path)
    return f"makes the folder '{os.fsdecode(path)}'" if is_new else ""


def _database(arguments: tuple[Any, ...], homes: Homes) -> str:
    path = arguments[0]
    is_file = isinstance(path, (str, bytes)) and os.fsdecode(path) not in {"", ":memory:"} and is_outside(path, homes)
    return f"opens the database '{os.fsdecode(path)}'" if is_file else ""


def _connected(arguments: tuple[Any, ...], _homes: Homes) -> str:
    address = arguments[1]
    where = ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)
    return f"connects to {where}"


def _started(arguments: tuple[Any, ...], _homes: Homes) -> str:
    words = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], (list, tuple)) else arguments[:1]
    program = os.fsdecode(words[0]) if words and isinstance(words[0], (str, bytes, os.PathLike)) else "a program"
    return "" if program in _HARMLESS_PROGRAMS else f"starts {program}"


def _forked(_arguments: tuple[Any, ...], _homes: Homes) -> str:
    return "forks"


_DEEDS: Final[Mapping[str, Callable[[tuple[Any, ...], Homes], str]]] = {
    "open": _opened,
    "os.remove": _changed("removes", 1),
    "os.rename": _changed("renames", 2, 3),
    "os.rmdir": _changed("removes", 1),
    "os.truncate": _changed("cuts", _NO_FOLDER),
    "os.link": _changed("links", 2, 3),
    "os.symlink": _changed("links", _NO_FOLDER, 2),
    "os.mkdir": _made_folder,
    "sqlite3.connect": _database,
    "socket.connect": _connected,
    "subprocess.Popen": _started,
    "os.system": _started,
    "os.exec": _started,
    "os.posix_spawn": _started,
    "os.spawn": _started,
    "os.fork": _forked,
    "os.forkpty": _forked,
}
