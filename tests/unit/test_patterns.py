"""Expressions that name tags: what could go on for ever is refused, what plants use is taken."""

from __future__ import annotations

import re

import pytest

from pipeline.core.names import MAX_SENSOR_CHARACTERS
from pipeline.core.patterns import MOST_WAYS, compiled
from pipeline.core.tags import Tags
from pipeline.settings import SettingsError, load

ENDLESS = {
    "(?P<sensor>(a+)+)/(?P<channel>b)": "repeats '(a+)'",
    "(?P<sensor>([a-z]+-?){,})/(?P<channel>b)": "repeats '([a-z]+-?)'",
    "(?P<sensor>([^/]+)*)/(?P<channel>b)": "repeats '([^/]+)'",
    "(?P<sensor>(?:[^/]+/?)+)(?P<channel>b)": "repeats '(?:[^/]+/?)'",
    "(?P<sensor>(?:a|a)*)/(?P<channel>b)": "repeats '(?:a|a)'",
    "(?P<sensor>(a{0,9}){9})/(?P<channel>b)": "repeats '(a{0,9})'",
    "(?P<sensor>((a|b)?c){2,})(?P<channel>b)": "repeats '((a|b)?c)'",
    "(?P<sensor>.*.*.*.*)(?P<channel>b)": "too many ways",
    "(?P<sensor>.{,200}.{,200}.{,200})(?P<channel>b)": "too many ways",
    f"(?P<sensor>{'a?' * 30})(?P<channel>b)": "too many ways",
    f"(?P<sensor>{'(a|aa)' * 20})(?P<channel>b)": "too many ways",
    "(?P<sensor>[^/]+(?:/|x)[^/]+/?[^/]+)(?P<channel>b)": "too many ways",
    "(?P<sensor>(?=a+)a)(?P<channel>b)": "plain groups",
    "(?P<sensor>a+)(?P<channel>(?P=sensor))": "plain groups",
    r"(?P<sensor>(a+))(?P<channel>\2)": "write the character itself",
    r"(?P<sensor>[^/]+)\x2f(?P<channel>b)": "write the character itself",
}
PLANTS = {
    "(?P<sensor>.+)/(?P<channel>temperature|vibration)": "plant1/pump-7/vibration",
    r"(?P<sensor>[^.]+\.[^.]+\.[^.]+)\.(?P<channel>\w+)(?:\.PV)?": "site.line.pump.T1.PV",
    "(?P<sensor>[^/]+/[^/]+/[^/]+/[^/]+)/(?P<channel>[^/]+)": "a/b/c/d/e",
    r"(?P<sensor>.+)-.+/(?P<channel>T|P|F)": "pump-7-a/T",
    r"plant\d{1,3}/(?P<sensor>.+)-(?P<channel>T|P)": "plant12/pump-7-T",
    r"(?P<sensor>(?:[A-Z]{2}-)*\d+)\[(?P<channel>[^]]+)\]": "AB-CD-17[flow]",
    "^(?P<channel>[TPF])(?P<sensor>[0-9]{3}[A-Z]?)$": "T101A",
}


@pytest.mark.parametrize("pattern", ENDLESS)
def test_an_expression_that_a_name_could_keep_busy_is_refused_with_the_reason(pattern: str) -> None:
    re.compile(pattern)  # a good one, else
    with pytest.raises(ValueError, match=re.escape(ENDLESS[pattern])):
        Tags(pattern)


def test_the_service_does_not_start_with_one() -> None:
    tag = "(?P<sensor>(a+)+)/(?P<channel>b)"
    with pytest.raises(SettingsError, match=r"tag.*repeats '\(a\+\)'.*characters and classes only"):
        load(None, {"KAFKA_BOOTSTRAP_SERVERS": "b:1", "FORESHOCK_MODEL__TAG": tag})


@pytest.mark.parametrize("pattern", PLANTS)
def test_expressions_of_plants_are_taken_and_come_to_an_end_on_hostile_names(pattern: str) -> None:
    tags, tag = Tags(pattern), PLANTS[pattern]
    assert tags.place(tag) is not None
    for i in range(len(tag)):
        for end in ("", "!", tag[-1]):
            hostile = (tag[:i] * MAX_SENSOR_CHARACTERS)[: MAX_SENSOR_CHARACTERS - len(end)] + end
            tags.place(hostile)  # comes to an end, which is all that is asked


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 3000 + ")" * 3000, "(?P<sensor>"])
def test_what_is_no_expression_is_refused_as_one(pattern: str) -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        compiled(pattern, MAX_SENSOR_CHARACTERS)


def test_a_name_that_is_longer_than_any_sensors_is_no_tag() -> None:
    assert Tags("(?P<sensor>.+)/(?P<channel>c)").place("s" * MAX_SENSOR_CHARACTERS + "/c") is None


def test_two_repetitions_that_nothing_ends_are_as_many_as_there_may_be() -> None:
    assert MAX_SENSOR_CHARACTERS**2 <= MOST_WAYS < MAX_SENSOR_CHARACTERS**3
    compiled("(.+)-(.+)", MAX_SENSOR_CHARACTERS)
    with pytest.raises(ValueError, match=r"exclude it from the part"):
        compiled("(.+)-(.+)-(.+)", MAX_SENSOR_CHARACTERS)
    compiled("([^-]+)-(.+)-(.+)", MAX_SENSOR_CHARACTERS)
