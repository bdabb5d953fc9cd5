"""The carried tables are the paper's, and stand only beside what they may be compared with."""

import os
from pathlib import Path

import pandas as pd
import pytest
from fishlens.analysis import published

from fishlens.errors import InputError

SHARED = Path(os.environ.get("FISHLENS_SHARED", Path(__file__).parents[3].parent / "shared"))


def test_every_table_has_the_rows_that_were_transcribed():
    rows = {name: len(published.read(name)) for name in published.TABLES}
    assert rows == {
        "results_average": 140,
        "results_per_language": 420,
        "results_low_data": 60,
        "hyperparameters": 78,
        "datasets": 4,
        "languages": 17,
    }


def test_the_carried_files_are_the_transcription():
    if not (SHARED / "paper").exists():
        pytest.skip(f"no transcription of the paper in {SHARED}: set FISHLENS_SHARED")
    for name in published.TABLES:
        there = pd.read_csv(SHARED / "paper" / f"{name}.csv", keep_default_na=False, na_values=[""])
        pd.testing.assert_frame_equal(published.read(name), there)


def test_an_adapter_called_none_is_not_a_missing_value():
    average = published.read("results_average")
    assert set(average.loc[average["table"] == 7, "adapter"]) == {"none"}


def test_printed_averages_are_the_means_of_the_printed_languages_but_for_two_named_rows():
    key = ["table", "dataset", "metric", "model", "adapter", "method"]
    cells = published.read("results_per_language")
    means = cells[cells["language"] != "en"].groupby(key)["value"].mean()
    average = published.read("results_average").set_index(key)["average"]
    of_table = {(8, "mlqa"): 1, (8, "xquad"): 1, (9, "xcopa"): 1, (10, "xnli"): 1}
    wrong = [
        row
        for row, mean in means.items()
        if abs(mean - average[(of_table.get(row[:2], row[0]), *row[1:])]) > 0.0051
    ]
    assert wrong == [
        (8, "mlqa", "f1", "xlm-r", "mad-x", "standard"),
        (16, "mlqa", "f1", "mdeberta", "mad-x", "gu"),
    ]


def test_the_shared_mean_is_over_the_languages_that_both_have():
    rows = published.published_beside("xnli", "accuracy", ["de", "sw", "fr"])  # the paper has no French
    row = rows[(rows["model"] == "xlm-r") & (rows["adapter"] == "mad-x") & (rows["method"] == "gu")].iloc[0]
    cells = published.read("results_per_language")
    mine = cells[
        (cells["dataset"] == "xnli")
        & (cells["model"] == "xlm-r")
        & (cells["method"] == "gu")
        & cells["language"].isin(["de", "sw"])
    ]
    assert len(mine) == 2
    assert row["shared"] == pytest.approx(mine["value"].mean(), abs=1e-9)
    assert row["shared_languages"] == "de,sw"
    assert not rows.duplicated(["model", "adapter", "method"]).any()


def test_exact_match_is_what_the_paper_calls_em():
    rows = published.published_beside("xquad", "exact_match", ["de", "ar"])
    row = rows[(rows["model"] == "mdeberta") & (rows["method"] == "gu")].iloc[0]
    assert (row["average"], row["table"], row["shared_languages"]) == (58.90, 16, "")


def test_a_doubtful_cell_comes_with_its_doubt():
    rows = published.read("results_average")
    em = rows.query("table == 1 and dataset == 'xquad' and metric == 'em' and model == 'mbert'")
    assert any("exceeds the lowest F1" in caveat for caveat in published.caveats(em))
    f1 = rows[(rows["table"] == 12) & (rows["dataset"] == "mlqa")]
    assert published.caveats(f1) == []


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("FacebookAI/xlm-roberta-base", "xlm-r"),
        ("models/xlm-r", "xlm-r"),
        ("xlm-roberta-large", None),
        ("google-bert/bert-base-multilingual-cased", "mbert"),
        ("microsoft/mdeberta-v3-base", "mdeberta"),
        ("package://fishlens.pocket/model", None),
        (None, None),
    ],
)
def test_models_are_known_by_hub_id_or_folder(name, model):
    assert published.model_of(name) == model


def test_a_task_that_names_no_data_set_of_the_paper_or_two_matches_nothing():
    assert published.dataset_of("nli", "xnli") == "xnli"
    assert published.dataset_of("qa") is None
    assert published.dataset_of("xquad", "mlqa") is None
    assert published.adapter_of("seq_bn") == "mad-x"
    assert published.adapter_of("lora[r=8]") == "lora"
    assert published.adapter_of("prefix_tuning") is None
    assert published.method_of("random") == "rand"


def test_an_unknown_table_is_refused_by_name():
    with pytest.raises(InputError, match=r"'results'.*results_average"):
        published.read("results")
