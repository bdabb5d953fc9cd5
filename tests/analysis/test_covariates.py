"""What transfer is regressed on elsewhere: by hand, and refused with a sentence where a package is missing."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.covariates import language_distances, read_covariates, token_overlap, tokens_per_word
from fishlens.analysis.models import mixed_model
from fishlens.analysis.report import build_report
from statsmodels.regression.linear_model import OLS

from fishlens.errors import InputError


def pairs_of_letters(text):
    return [word[k : k + 2] for word in text.split() for k in range(0, len(word), 2)]


def test_tokens_per_word_and_overlap_are_counts():
    assert tokens_per_word(["ab abc", "abcde"], pairs_of_letters) == pytest.approx(6 / 3)
    # the source has ab, c, cd; of the target's ab, ab, xx, c three are among them
    assert token_overlap(["abc abcd"], ["ab abxx c"], pairs_of_letters) == pytest.approx(3 / 4)
    with pytest.raises(InputError, match="no word"):
        tokens_per_word([" "], pairs_of_letters)
    with pytest.raises(InputError, match="no token"):
        token_overlap(["ab"], [""], pairs_of_letters)


def test_distances_without_their_package_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "urielplus", None)
    with pytest.raises(InputError, match=r"fishlens\[languages\]"):
        language_distances("en", ["de"])
    with pytest.raises(InputError, match="no distance 'moral'"):
        language_distances("en", ["de"], ["moral"])


def test_a_relative_is_nearer_than_a_stranger():
    pytest.importorskip("urielplus")
    found = language_distances("en", ["de", "sw"], ["genetic", "geographic"]).set_index("language")
    assert found.loc["de", "genetic"] < found.loc["sw", "genetic"]
    assert found.loc["de", "geographic"] < found.loc["sw", "geographic"]


def test_a_pair_without_a_feature_in_common_has_an_empty_cell_that_is_named(monkeypatch):
    class Known:
        def new_distance(self, kind, pair):
            if pair[1] == "zzz":
                raise ValueError("Unknown languages: zzz.")
            if (kind, pair[1]) == ("phonological", "quy"):
                raise ValueError("No shared phonological features between eng and quy.")
            return 0.5

    monkeypatch.setitem(sys.modules, "urielplus", SimpleNamespace(urielplus=SimpleNamespace(URIELPlus=Known)))
    with pytest.warns(
        UserWarning, match="no phonological feature of both eng and quy: that cell is left empty"
    ):
        found = language_distances("en", ["de", "qu"], ["genetic", "phonological"]).set_index("language")
    assert found["genetic"].tolist() == [0.5, 0.5] and found.loc["de", "phonological"] == 0.5
    assert np.isnan(found.loc["qu", "phonological"])
    with pytest.raises(InputError, match="Unknown languages: zzz"):
        language_distances("en", ["zzz"])


def test_with_the_package_itself_a_pair_without_a_feature_in_common_has_an_empty_cell():
    pytest.importorskip("urielplus")
    with pytest.warns(UserWarning, match="eng and quy"):
        found = language_distances("en", ["qu"], ["inventory", "phonological"])
    assert np.isnan(found.loc[0, "phonological"]) and 0 < found.loc[0, "inventory"] < 1


def test_a_number_of_languages_is_judged_by_as_many_observations_as_languages():
    """Balanced: the slope, its error and its p are those of least squares over the languages' means."""
    rng = np.random.default_rng(0)
    run, language = np.repeat(np.arange(12), 7), np.tile(np.arange(7), 12)
    distance = rng.standard_normal(7)
    value = (2 * distance + 3 * rng.standard_normal(7))[language] + rng.standard_normal(12)[run]
    value += rng.standard_normal(84)
    table = pd.DataFrame({"run": run, "language": language, "value": value, "distance": distance[language]})
    slope = mixed_model(table, ["distance"], random=("language", "run"), standardise=False).fixed.iloc[1]
    means = table.groupby("language")[["value", "distance"]].mean()
    theirs = OLS(means["value"], np.column_stack([np.ones(7), means["distance"]])).fit()
    assert slope["estimate"] == pytest.approx(theirs.params.iloc[1], rel=1e-6)
    assert slope["error"] == pytest.approx(theirs.bse.iloc[1], rel=1e-4)
    assert slope["freedom"] == pytest.approx(5) and slope["p"] == pytest.approx(
        theirs.pvalues.iloc[1], rel=1e-3
    )


def test_the_report_judges_features_beside_numbers_of_languages(study, tmp_path):
    few = pd.DataFrame({"language": ["de", "sw", "th"], "distance": [0.1, 0.7, 0.9]})
    report = build_report(study, covariates=few, only=["prediction"])
    missing = [item for item in report.groups[0].sections[0].items if "regressed on" in item.title]
    assert "1 degree of freedom for distance, at least 3 are needed" in missing[0].reason
    file = tmp_path / "covariates.csv"
    few.to_csv(file, index=False)
    assert read_covariates(file).equals(few)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("language\nde\n", "has the columns language; expected language, and at least one more"),
        ("language,far\nde,1\nde,2\n", "has the language 'de' twice"),
        ("language,far\nde,1\nsw,near\n", "has 'near' in its column far; expected a number"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_file_of_covariates_that_is_not_one_is_refused(tmp_path, text, said):
    file = tmp_path / "covariates.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        read_covariates(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_covariates(tmp_path / "none.csv")
