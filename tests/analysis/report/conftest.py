"""The report of the study that all tests of this folder share: built once, and its page drawn once."""

import pytest
from fishlens.analysis.report import Report, build_report, to_html


@pytest.fixture(scope="session")
def report(study) -> Report:
    return build_report(study)


@pytest.fixture(scope="session")
def page(report) -> str:
    return to_html(report)
