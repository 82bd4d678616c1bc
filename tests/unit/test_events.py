"""What enters the detector beside readings, and the outcome it fills."""

from __future__ import annotations

import numpy as np

from pipeline.core.events import Bound, Outcome, Rules


def test_the_first_bound_that_matches_counts_as_in_a_list_that_an_operator_reads() -> None:
    special, general = Bound("plant1/pump-7", "flow", 0, 9), Bound("plant1/*", "flow", 0, 5)
    rules = Rules(bounds=(special, general))
    assert rules.bound("plant1/pump-7", "flow") is special
    assert rules.bound("plant1/pump-70", "flow") is general
    assert Rules(bounds=(general, special)).bound("plant1/pump-7", "flow") is general


def test_a_bound_is_for_one_channel_and_its_pattern_minds_case() -> None:
    rules = Rules(bounds=(Bound("pump-?", "flow", 0, 5),))
    assert rules.bound("pump-7", "pressure") is None
    assert rules.bound("Pump-7", "flow") is None
    assert rules.bound("pump-77", "flow") is None


def test_an_outcome_has_a_row_for_every_reading_before_anything_is_said_of_it() -> None:
    outcome = Outcome.empty(3, 2)
    assert outcome.scores.tolist() == [0.0, 0.0, 0.0]
    assert outcome.alerting.tolist() == [False, False, False]
    assert outcome.expected.shape == outcome.band.shape == (3, 2)
    assert np.isnan(outcome.expected).all()
    outcome.band[0, 0] = 1.0
    assert np.isnan(outcome.expected[0, 0])


def test_what_did_not_happen_is_not_counted() -> None:
    outcome = Outcome.empty(0, 1)
    for what, how_many in (("late", 2), ("future", 0), ("late", 3)):
        outcome.count(what, how_many)
    assert outcome.counts == {"late": 5}
