"""Which packages there are; everything else about the project is in pyproject.toml.

`analysis/` is a half of the product of its own: it stands at the top level and is installed as fishlens.analysis, so
that it can never collide with a user's own `analysis` module.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["fishlens", "fishlens.*"]),
        *(f"fishlens.{name}" for name in find_packages(include=["analysis", "analysis.*"])),
    ],
    package_dir={"fishlens.analysis": "analysis"},
)
