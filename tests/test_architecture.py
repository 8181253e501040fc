"""The layers of the package hold: every module is in exactly one, and imports point downwards only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import networkx as nx
import pytest
from end_to_end import write_saved_model

PACKAGE = Path(__file__).parents[1] / "graphlens"

# From the bottom up.  Layers on one line are siblings: they never import each other.
LAYERS: list[dict[str, list[str]]] = [
    {"base": ["_version", "units", "options", "config", "command", "plugins", "errors", "workplace", "collector"]},
    {"ir": ["ir"]},
    {"loaders": ["loaders"]},
    {"children": ["children"]},
    {"tf": ["tf"]},
    {"facts": ["facts"]},
    {"rules": ["rules"], "report": ["report"], "prove": ["prove"]},
    {"pipeline": ["pipeline", "api", "keras"]},
    {"cli": ["cli", "__main__"], "testing": ["testing"]},
]
# `tf` may use `loaders`; `facts` uses neither of them.
FORBIDDEN = {("facts", "loaders"), ("facts", "tf"), ("rules", "loaders"), ("rules", "tf"), ("report", "loaders")}
FORBIDDEN |= {("facts", "children"), ("rules", "children"), ("report", "facts"), ("report", "tf"), ("loaders", "tf")}
LEVEL = {layer: level for level, layers in enumerate(LAYERS) for layer in layers}
LAYER_OF = {part: layer for layers in LAYERS for layer, parts in layers.items() for part in parts}

# The rooms of a folder, from the bottom up as well; a room is a file or a folder of files, which may import each other.
ROOMS: dict[str, list[set[str]]] = {
    "children": [
        {"gate_messages", "messages", "orphan", "tool", "watching"},
        {"channel", "start"},
        {"ask_fusion", "ask_placement", "recorder", "script", "script_trial", "service"},
    ],
    "facts": [
        {"core", "flat"},
        {"clock", "crossing"},
        {"placement", "programs"},
        {"graphs"},
        {"time"},
        {"replicas"},
        {"input", "training"},
        {"work"},
        {"copies", "patterns", "rows"},
    ],
    "rules": [
        {"needs", "phrases", "plugin_facts"},
        {"registry"},
        {"runner"},
        {
            "capture",
            "copies",
            "execution",
            "fusion",
            "input",
            "memory",
            "precision",
            "redundancy",
            "replicas",
            "safety",
            "tracing",
        },
        {"__init__"},
    ],
    "loaders/capture": [{"parts"}, {"manifest"}, {"reading", "writing"}, {"collecting", "packing"}],
    "tf": [
        {"comparison", "exchange", "importing", "private"},
        {"datasets"},
        {"demo", "open", "probe"},
        {"record"},
        {"rewrite"},
        {"trial", "watch"},
    ],
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def module_layer(path: Path) -> str:
    """The layer of a file: that of its first path component below the package."""
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "api" if part == "__init__" else LAYER_OF.get(part, f"no layer holds {part}")


def imports(path: Path) -> set[str]:
    """Every module that a file imports: at the top, within a function, or for its types only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def internal(path: Path) -> set[str]:
    """The layers that a file imports from."""
    parts = {name.split(".")[1] for name in imports(path) if name.startswith("graphlens.")}
    return {LAYER_OF[part] for part in parts if part in LAYER_OF}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    layer = module_layer(path)
    if layer == "api":
        return
    assert layer in LEVEL, layer
    for other in internal(path) - {layer}:
        assert LEVEL[other] < LEVEL[layer], f"{path.name} ({layer}) imports {other}"
        assert (layer, other) not in FORBIDDEN, f"{path.name} ({layer}) imports {other}"


def dotted(path: Path) -> str:
    """The name by which a file is imported."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def import_graph(sources: Mapping[str, str]) -> nx.DiGraph:
    """Who imports whom, of modules with their sources; ``from package import name`` may be of ``package.name``."""
    graph = nx.DiGraph()
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            named = {alias.name for alias in node.names} if isinstance(node, (ast.Import, ast.ImportFrom)) else set()
            if isinstance(node, ast.ImportFrom):
                full = {f"{node.module}.{name}" for name in named}
                named = {name if name in sources else str(node.module) for name in full}
            graph.add_edges_from((module, name) for name in named & sources.keys() - {module})
    return graph


def circles(graph: nx.DiGraph) -> list[list[str]]:
    return [sorted(found) for found in nx.strongly_connected_components(graph) if len(found) > 1]


def test_no_two_modules_import_each_other_in_however_many_steps() -> None:
    """Neither within functions, nor for types only: what is read together is no two modules."""
    assert circles(import_graph({dotted(path): path.read_text(encoding="utf-8") for path in MODULES})) == []


def test_a_circle_is_seen() -> None:
    sources = {
        "p.a": "import p.b",
        "p.b": "def later():\n    from p.q import c",
        "p.q": "",
        "p.q.c": "if TYPE_CHECKING:\n    from p.a import Name",
        "p.d": "from p.a import Name",
    }
    assert circles(import_graph(sources)) == [["p.a", "p.b", "p.q.c"]]


@pytest.mark.parametrize("folder", ROOMS)
def test_rooms_use_those_below_them_only(folder: str) -> None:
    level = {room: number for number, rooms in enumerate(ROOMS[folder]) for room in rooms}
    package = f"graphlens.{folder.replace('/', '.')}."
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        room = path.relative_to(PACKAGE / folder).parts[0].removesuffix(".py")
        if room == "__init__" and room not in level:
            assert not {name for name in imports(path) if name.startswith(package)}, f"{path} imports its own rooms"
            continue
        assert room in level, f"{folder}: no line of ROOMS holds {room}"
        used = {name.removeprefix(package).split(".")[0] for name in imports(path) if name.startswith(package)} - {room}
        above = {other for other in used & set(level) if level[other] >= level[room]}
        assert not above, f"{path.name} ({room}) imports {above}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_tf_package_imports_tensorflow(path: Path) -> None:
    heavy = {name.split(".")[0] for name in imports(path)} & {"tensorflow", "keras", "tf_keras"}
    assert not heavy or module_layer(path) == "tf", f"{path} imports {heavy}"


# Whatever makes another process: a module that is for nothing else, or what `os` and `asyncio` offer.
STARTERS = frozenset({"subprocess", "multiprocessing", "pty", "popen2", "ProcessPoolExecutor"})
STARTING = re.compile(
    r"^(exec(l|v)\w*|spawn\w+|posix_spawnp?|fork|forkpty|popen|system|startfile|create_subprocess_\w+)$"
)


def starts_of_processes(source: str) -> set[str]:
    """What a module uses that starts another process, under whatever name it is imported."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            names = [part for alias in node.names for part in f"{module}.{alias.name}".split(".")]
            found |= {name for name in names if name in STARTERS or (module and STARTING.match(name))}
        elif isinstance(node, ast.Attribute) and (node.attr in STARTERS or STARTING.match(node.attr)):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and node.value in STARTERS - {"popen2", "pty"}:
            found.add(node.value)  # as in importlib.import_module("subprocess")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_process_is_started_in_children(path: Path) -> None:
    """Only there is it seen to that nothing is imported from the current folder, and that children end with parents."""
    started = starts_of_processes(path.read_text(encoding="utf-8"))
    assert not started or module_layer(path) == "children", f"{path} starts a process: {started}"


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess",
        "import subprocess as sp",
        "from subprocess import run",
        "from os import execv as e",
        "import os\nos.fork()",
        "import os\nos.posix_spawn('a', [], {})",
        "import os\nos.system('a')",
        "import multiprocessing.pool",
        "from concurrent.futures import ProcessPoolExecutor",
        "from concurrent import futures\nfutures.ProcessPoolExecutor()",
        "import asyncio\nasyncio.create_subprocess_exec('a')",
        "import importlib\nimportlib.import_module('subprocess')",
    ],
)
def test_the_start_of_a_process_is_seen(source: str) -> None:
    assert starts_of_processes(source)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_states_its_duty(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no docstring"


def modules_after(*arguments: str) -> set[str]:
    """The modules that a run of the command line has imported."""
    script = (
        "import sys, io, contextlib\n"
        "from graphlens.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main({list(arguments)!r})\n"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("command", [(), ("analyze",), ("record",), ("fix",), ("rules",), ("demo",)])
def test_help_imports_only_the_standard_library(command: tuple[str, ...]) -> None:
    loaded = modules_after(*command, "--help")
    assert "graphlens.cli" in loaded
    others = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"graphlens", "__main__"}
    assert others <= {name.partition(".")[0] for name in modules_at_start()}
    parts = {name.split(".")[1] for name in loaded if name.startswith("graphlens.")}
    assert {LAYER_OF[part] for part in parts} == {"base", "cli"}


def modules_at_start() -> set[str]:
    """The modules that Python has imported before a program begins: an editable install adds some."""
    run = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


# What a run needs that executes, proves or places a model, reads profiles, or draws a page.
FOR_OTHER_RUNS = {
    "tensorflow", "numpy", "networkx", "graphviz", "jinja2", "grpc", "subprocess",
    "graphlens.children", "graphlens.tf", "graphlens.prove", "graphlens.loaders.xplane", "graphlens.loaders.profiles",
    "graphlens.pipeline.recorder", "graphlens.pipeline.proofs", "graphlens.pipeline.whatif",
    "graphlens.pipeline.foreign", "graphlens.pipeline.fixing", "graphlens.report.html",
}  # fmt: skip


@pytest.mark.parametrize("output", [(), ("-o", "r.json")], ids=["terminal", "json"])
def test_a_static_run_imports_what_reads_and_judges_a_graph_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = write_saved_model(tmp_path / "model", [("x", "Placeholder", ()), ("y", "Relu", ("x",))])
    loaded = modules_after("analyze", str(model), "--static", *output)
    assert {"graphlens.loaders.savedmodel", "graphlens.rules.runner", "graphlens.report.terminal", "rich"} <= loaded
    assert not loaded & FOR_OTHER_RUNS
    protobuf = {name for name in loaded if name.startswith("tensorboard.")}
    assert {".".join(name.split(".")[:3]) for name in protobuf} <= {
        "tensorboard.compat", "tensorboard.compat.proto", "tensorboard.version", "tensorboard.lazy",
    }  # fmt: skip
    assert ("graphlens.ir.document" in loaded) == bool(output)


def test_a_page_is_drawn_by_what_is_imported_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = write_saved_model(tmp_path / "model", [("x", "Placeholder", ()), ("y", "Relu", ("x",))])
    assert {"jinja2", "graphlens.report.html"} <= modules_after("analyze", str(model), "--static", "-o", "r.html")


def test_explaining_a_rule_needs_no_tensorflow() -> None:
    assert "tensorflow" not in modules_after("rules", "GL203")


# What the command needs until the script has been started: nothing of what reads a recording, or judges it.
BEFORE_A_SCRIPT = {
    "graphlens.children", "graphlens.cli", "graphlens.config", "graphlens.errors", "graphlens.options",
    "graphlens.loaders.capture.parts", "graphlens.pipeline.running", "graphlens.report", "graphlens.workplace",
}  # fmt: skip


def test_a_script_is_started_before_anything_is_imported_that_judges_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    code = (
        "import sys; from graphlens.children import script\n"
        "def run(*_, **__): print(*sys.modules); sys.stdout.flush(); import os; os._exit(0)\n"
        "script.run = run\n"
        "from graphlens.cli import main; main(sys.argv[1:])"
    )
    words = ["run", "-o", str(tmp_path / "r.html"), "-o", str(tmp_path / "r.capture"), str(tmp_path / "train.py")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    others = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"graphlens", "__main__"}
    assert others <= {name.partition(".")[0] for name in modules_at_start()}
    own = {name for name in loaded if name.startswith("graphlens.")}
    unneeded = {
        name for name in own if not any(one.startswith(name) or name.startswith(one) for one in BEFORE_A_SCRIPT)
    }
    assert unneeded == {"graphlens._version"}


@pytest.mark.tf
def test_what_watches_a_script_imports_nothing_that_judges_it() -> None:
    """It is imported at the first call of TensorFlow, while the script waits."""
    code = "import sys, graphlens.tf.watch.watch; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    judging = {"graphlens.ir.analysis", "graphlens.ir.table", "graphlens.ir.calls", "graphlens.loaders.graphdef"}
    assert not judging & set(done.stdout.split())
