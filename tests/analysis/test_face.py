"""What a user imports is in `fishlens.analysis` itself, and nothing there needs torch."""

import pkgutil
import subprocess
import sys
from importlib import import_module

import fishlens.analysis
import pytest

MODULES = [
    module.name for module in pkgutil.walk_packages(fishlens.analysis.__path__, "fishlens.analysis.")
    if ".studies" not in module.name
]  # fmt: skip


def test_every_module_imports_without_torch():
    assert len(MODULES) > 40
    code = (
        f"import sys\nfrom importlib import import_module\nfor name in {MODULES}: import_module(name)\n"
        "import fishlens.analysis as face\nfor name in face.__all__: getattr(face, name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", fishlens.analysis.__all__)
def test_a_name_stays_what_it_is_when_modules_are_imported(name):
    """A module called like an exported function would take its place once somebody imports it."""
    before = getattr(fishlens.analysis, name)
    for module in MODULES:
        import_module(module)
    assert getattr(fishlens.analysis, name) is before
    is_part = f"fishlens.analysis.{name}" in MODULES
    assert is_part == (before is sys.modules.get(f"fishlens.analysis.{name}"))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fishlens.analysis.nothing
