"""What lies in a checkpoint of a Trainer may be damaged or a stranger's: one sentence, or a run of its own."""

import json
from types import SimpleNamespace

import pytest

from fishlens import UnfreezeCallback
from fishlens.errors import InputError
from fishlens.tracking import resumption, unfreeze_callback
from fishlens.tracking.resumption import origin_of_checkpoint

STRANGE = (None, True, -1, 1e308, "", "x", "\0", "/", [], [None], {}, {"a": 1}, "\ud800")
RUN = {"run": "/runs/a", "way": "../runs/a", "id": "1", "checkpoint": "/out/checkpoint-2"}
SCHEDULE = {
    "schedule": "gu", "every": 2,
    "state": {"thawed": ["a"], "thawed_last": [], "events": 1, "last_step": 0, "learning_rate_weights": {}},
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    """`checkpoint(name, text)`: a checkpoint of step 2 with this file, as a Trainer names them."""
    args = SimpleNamespace(output_dir=str(tmp_path), resume_from_checkpoint=None)
    (tmp_path / "checkpoint-2").mkdir()

    def made(name, text):
        (tmp_path / "checkpoint-2" / name).write_text(text)
        return args, SimpleNamespace(global_step=2)

    return made


TEXTS = ["", "[]", "3", "{", "[" * 100_000, "9" * 10_000, "null", '{"run": 3}']


@pytest.mark.parametrize("text", TEXTS)
def test_a_damaged_note_of_whose_a_checkpoint_is_makes_a_run_of_its_own(checkpoint, text):
    assert origin_of_checkpoint(*checkpoint(resumption.STATE_FILE, text)) is None


def test_a_note_with_any_field_of_another_kind_makes_a_run_of_its_own(checkpoint):
    for field in RUN:
        for value in STRANGE:
            text = json.dumps({**RUN, field: value})
            assert origin_of_checkpoint(*checkpoint(resumption.STATE_FILE, text)) is None, (field, value)


def test_a_damaged_schedule_is_one_sentence(checkpoint):
    callback = UnfreezeCallback("gu", every=2)
    strange = [{**SCHEDULE, field: value} for field in SCHEDULE for value in STRANGE if field == "state"]
    strange += [
        {**SCHEDULE, "state": {**SCHEDULE["state"], field: None}} for field in ("thawed", "thawed_last")
    ]
    for text in [*TEXTS, *map(json.dumps, strange)]:
        with pytest.raises(InputError, match="is damaged") as told:
            callback._stored_state(*checkpoint(unfreeze_callback.STATE_FILE, text))
        assert "\n" not in str(told.value)
    assert callback._stored_state(*checkpoint(unfreeze_callback.STATE_FILE, json.dumps(SCHEDULE))).thawed == (
        "a",
    )
