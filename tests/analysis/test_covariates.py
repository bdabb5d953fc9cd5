"""What transfer is regressed on elsewhere: by hand, and refused with a sentence where a package is missing."""

import sys

import pytest
from fishlens.analysis.covariates import language_distances, token_overlap, tokens_per_word

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
