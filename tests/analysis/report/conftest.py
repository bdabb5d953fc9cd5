"""The report of the study that all tests of this folder share: built once, and its page drawn once."""

import pytest
from fishlens.analysis.report import Report, build_report, to_html


@pytest.fixture(scope="session")
def report(study) -> Report:
    return build_report(study)


@pytest.fixture(scope="session")
def page(report) -> str:
    return to_html(report)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write):
    """A folder with three runs of each of two schedules."""
    folder = tmp_path_factory.mktemp("runs")
    for schedule in ("standard", "gu"):
        for seed in range(3):
            write(folder, schedule, seed)
    return folder
