"""One of a thing is one of it."""

import pytest

from fishlens.names import counted


@pytest.mark.parametrize(
    ("count", "things", "text"),
    [
        (0, "runs", "0 runs"),
        (1, "runs", "1 run"),
        (1, "degrees of freedom", "1 degree of freedom"),
        (1, "training runs", "1 training run"),
        (1, "seeds that cross", "1 seed that crosses"),
        (3, "seeds that cross", "3 seeds that cross"),
        (1, "runs of each task", "1 run of each task"),
        (12345, "rows", "12,345 rows"),
    ],
)
def test_a_number_and_what_was_counted(count, things, text):
    assert counted(count, things) == text
