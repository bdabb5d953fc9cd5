"""The map of docs/architecture.md holds: imports point one way, and light modules stay light."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[1]
EVERYWHERE = {"errors", "files", "names", "own_code"}
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "names": set(),
    "own_code": set(),
    "fisher": set(),
    "schedules": set(),
    "journal": set(),
    "tracking": {"fisher", "journal", "schedules"},
    "lightning": {"tracking"},
    "accelerate": {"tracking"},
    "recipe": set(),
    "training": {"fisher", "schedules", "journal", "tracking", "recipe"},
    "pretraining": {"training", "recipe", "journal"},
    "analysis": {"journal"},
    "pocket": {"recipe", "pretraining", "training", "tracking", "fisher", "schedules", "journal"},
    "sweep": {"recipe", "training", "tracking", "journal", "schedules"},
}
MUST_NOT_LOAD_TORCH = [
    "fishlens",
    "fishlens.cli",
    "fishlens.journal",
    "fishlens.recipe",
    "fishlens.schedules",
    "fishlens.analysis",
]
ALSO_FACES = ["fishlens.training.tasks"]  # what a task of one's own needs


def part_of(module: str) -> str | None:
    words = module.split(".")
    return words[1] if words[0] == "fishlens" and len(words) > 1 else None


def sources():
    for path in sorted([*ROOT.glob("fishlens/**/*.py"), *ROOT.glob("analysis/**/*.py")]):
        relative = path.relative_to(ROOT)
        if relative.parts[0] == "analysis":
            yield "analysis", path
        elif len(relative.parts) > 2:
            yield relative.parts[1], path
        elif relative.stem != "__init__":
            yield relative.stem, path


def imported_parts(path: Path, part: str) -> set[str]:
    """The parts of fishlens that a file imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                continue  # relative: within the part
            names = [node.module or ""]
            if node.module == "fishlens":
                names = [f"fishlens.{alias.name}" for alias in node.names]
        found |= {name for name in map(part_of, names) if name and name != "__version__"}
    return found - {part}


@pytest.mark.parametrize(
    ("part", "path"), [pytest.param(*s, id=str(s[1].relative_to(ROOT))) for s in sources()]
)
def test_imports_point_one_way(part, path):
    if part == "cli":
        return  # on top: may import anything, lazily
    assert part in MAY_IMPORT, f"{path} is in no part of the map: add '{part}' here"
    wrong = imported_parts(path, part) - MAY_IMPORT[part] - EVERYWHERE
    assert not wrong, f"{path.relative_to(ROOT)} ({part}) imports {sorted(wrong)}"


def test_analysis_imports_its_own_modules_in_one_way():
    """Relatively: it stands at the top level here and inside fishlens where it is installed."""
    for part, path in sources():
        if part == "analysis" and "studies" not in path.parts:
            assert "analysis" not in imported_parts(path, "nothing"), path


def test_notebooks_and_docs_need_no_import_from_deep_inside():
    """What they import is exported by fishlens or by one of its parts."""
    pages = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    imports = re.compile(r"(?:from|import) (fishlens(?:\.\w+)+)")
    for page in pages:
        if page.name == "extending.md":
            continue  # about the inside
        for module in imports.findall(page.read_text(encoding="utf-8")):
            assert module.count(".") == 1 or module in ALSO_FACES, f"{page.name}: {module}"


@pytest.mark.parametrize("module", MUST_NOT_LOAD_TORCH)
def test_light_modules_load_no_torch(module):
    name = module.removeprefix("fishlens.").split(".")[0]
    folder = ROOT / ("analysis" if name == "analysis" else f"fishlens/{name}")
    if module != "fishlens" and not folder.exists():
        pytest.skip(f"{module} does not exist")
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_package_is_installed():
    """setup.py finds them: what is imported as fishlens.X from the source is a package of the distribution."""
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("fishlens/**/__init__.py")}
    there |= {
        "fishlens." + ".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("analysis/**/__init__.py")
    }
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **settings: given.update(settings))
        runpy.run_path(str(ROOT / "setup.py"))
    assert set(given["packages"]) == there
