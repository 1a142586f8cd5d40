"""Imports run one way: interface <- text, models, decoding, chain <- weights, evaluation, figures <- training,
prompting <- serving <- notebook <- cli. This file is the table, and holds it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import glassgpt

ROOT = Path(glassgpt.__file__).parent

STEPS: list[set[str]] = [
    {"errors", "display"},
    {"numerics", "files"},
    {"automata"},
    {"interface"},
    {"check"},
    {"text", "models", "decoding", "chain"},
    {"weights", "evaluation", "figures"},
    {"loading"},
    {"training", "prompting"},
    {"serving"},
    {"notebook"},
    {"cli"},
    {"__main__"},
]
STEP = {room: i for i, rooms in enumerate(STEPS) for room in rooms}
ONLY = {  # rooms that read less than all below them
    "errors": set(),
    "display": set(),
    "files": {"errors"},
    "numerics": {"errors"},
    "automata": {"errors", "numerics"},
    "interface": {"errors", "numerics", "automata"},
    "check": {"errors", "numerics", "interface"},
    "loading": {"errors", "interface", "weights"},
}


def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("glassgpt", *path.relative_to(ROOT).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(name: str, with_types: bool) -> set[str]:
    """Full names of what a module imports anywhere in it, inside functions too."""
    path = MODULES[name]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                base = ".".join(package[: len(package) - node.level + 1] + ([base] if base else []))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else base)
        for child in node.orelse if is_type_checking(node) and not with_types else ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def room(name: str) -> str:
    return name.split(".")[1]


def outside_the_package_root() -> list[str]:
    return [name for name in MODULES if name != "glassgpt"]


def test_every_module_lives_in_a_known_room():
    assert {room(name) for name in outside_the_package_root()} <= STEP.keys()


@pytest.mark.parametrize("name", outside_the_package_root())
def test_a_module_imports_only_rooms_before_its_own(name):
    own = room(name)
    for other in imports(name, with_types=True):
        if other == "glassgpt":
            assert own in ("serving", "cli"), f"{name} imports the package root, which names every room"
        if not other.startswith("glassgpt.") or room(other) == own:
            continue
        assert STEP[room(other)] < STEP[own], f"{name} imports {other}"
        if own in ONLY:
            assert room(other) in ONLY[own], f"{name} imports {other}"


@pytest.mark.parametrize("name", [name for name in outside_the_package_root() if room(name) in ("chain", "decoding")])
def test_chain_and_decoding_know_no_model_and_no_framework(name):
    for other in imports(name, with_types=True):
        assert other.split(".")[0] not in ("torch", "jax", "jaxlib", "safetensors", "tokenizers"), f"{name}: {other}"
        assert not other.startswith(("glassgpt.models", "glassgpt.weights", "glassgpt.training", "glassgpt.text"))


def test_what_is_displayed_asks_one_room_by_its_name_and_nothing_else_does_so():
    named = {
        (name, node.value)
        for name in outside_the_package_root()
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in set(MODULES) - {"glassgpt"}
    }
    assert named == {("glassgpt.display", "glassgpt.notebook")}


def test_the_interface_and_its_foundations_need_numpy_alone():
    for name in ("errors", "display", "numerics", "automata", "interface", "check"):
        tops = {other.split(".")[0] for other in imports(f"glassgpt.{name}", with_types=True)}
        assert tops - set(sys.stdlib_module_names) - {"glassgpt"} <= {"numpy"}, name


def test_there_are_no_circles():
    graph = {name: imports(name, with_types=False) & MODULES.keys() for name in MODULES}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name]):
                walk(other, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def test_the_package_root_imports_nothing_until_a_name_is_used():
    assert not {other for other in imports("glassgpt", with_types=False) if other.startswith("glassgpt")}


def test_every_public_name_is_found_where_the_root_says():
    for name in glassgpt.__all__:
        assert getattr(glassgpt, name).__name__ == name
        assert getattr(glassgpt, name).__name__ == name, f"glassgpt.{name} is something else when asked again"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = glassgpt.nothing


def test_every_public_name_is_listed_before_it_is_used():
    assert set(glassgpt.__all__) <= set(dir(glassgpt))


def loaded_after(code: str) -> set[str]:
    code = f"import sys\n{code}\nprint('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


HEAVY = {"torch", "scipy", "matplotlib", "jax", "numba", "numpy", "rich"}


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_after("import glassgpt") & HEAVY


def test_help_loads_nothing_heavy():
    loaded = loaded_after(
        "from glassgpt.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code in (0, None)"
    )
    assert not loaded & HEAVY


@pytest.mark.parametrize("name", ["interface", "check", "numerics", "automata", "decoding.generate", "decoding.shaped"])
def test_the_core_runs_without_torch_scipy_or_matplotlib(name):
    assert not loaded_after(f"import glassgpt.{name}") & {"torch", "scipy", "matplotlib", "jax"}
