"""The rooms of the package import only what the design allows them to."""

import ast
import subprocess
import sys
from pathlib import Path

import terralean

ROOT = Path(terralean.__file__).parent
EVERYWHERE = {"spec", "errors"}
ALLOWED = {
    "spec": {"errors"},
    "errors": set(),
    "raster": set(),
    "boxes": set(),
    "cost": set(),
    "tokens": set(),
    "layers": {"tokens"},
    "models": {"layers", "tokens", "boxes"},
    "data": {"raster", "boxes"},
    "tasks": {"data", "boxes"},
    "weights": {"models", "adapt", "tokens"},
    "adapt": set(),
    "predict": {"weights", "tasks", "tokens", "layers", "boxes"},
    "train": {"data", "models", "tokens", "adapt", "weights", "tasks", "predict", "cost"},
    "recipes": {"train", "data", "tokens"},
    "mapping": {"raster", "predict", "tasks", "weights", "boxes", "cost", "data"},
    "evaluate": {"data", "tasks", "predict", "raster", "weights", "cost", "mapping", "tokens"},
    "explain": {"predict", "raster", "tasks", "models", "mapping", "tokens", "layers"},
    "inspect": {"raster", "data", "weights", "predict"},
    "benchmark": {"models", "layers", "tokens", "weights", "predict", "export", "cost", "data", "raster"},
    "export": {"models", "layers", "tokens", "weights", "predict", "data", "raster", "cost", "boxes"},
    "demo": None,  # all but cli
    "cli": None,
}


def rooms_imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("terralean.")}
    return found & {*ALLOWED}


def test_every_room_is_in_the_table():
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__", "__pycache__"} == set(ALLOWED)


def test_rooms_import_what_the_table_allows():
    wrong = []
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        allowed = ALLOWED.get(room)
        if room == "__init__" or allowed is None:
            continue
        extra = rooms_imported(path) - allowed - EVERYWHERE - {room}
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in sorted(extra)]
    assert not wrong


def test_no_room_imports_the_command_line():
    others = {*ROOT.rglob("*.py")} - {*(ROOT / "cli").rglob("*.py")}
    assert not [path for path in others if "cli" in rooms_imported(path)]


def test_raster_works_without_torch():
    for path in (ROOT / "raster").rglob("*.py"):
        assert "import torch" not in path.read_text()


def test_a_map_is_made_without_what_only_training_and_evaluating_need():
    """Each of these would be held in memory by every process that maps."""
    code = "import sys, terralean.recipes, terralean.mapping.many, terralean.mapping.within; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {name.partition(".")[0] for name in done.stdout.splitlines()}
    assert packages & {"sklearn", "lightning", "matplotlib", "pandas", "onnx", "openvino"} == set()
    assert {"scipy.stats", "scipy.io"} & {*done.stdout.splitlines()} == set()
