"""Names of Quarantines."""

from __future__ import annotations

from tenure.enforce.names import further_name, quarantine_name
from tenure.model.keys import Key


def test_a_name_is_readable() -> None:
    assert quarantine_name(Key("ServiceAccount", "payments", "ci"), "6d0f1a2b-0000") == "serviceaccount-ci-6d0f1a"


def test_a_long_name_is_cut_and_stays_distinct() -> None:
    one = quarantine_name(Key("Secret", "payments", "x" * 253), "6d0f1a2b-0000")
    two = quarantine_name(Key("Secret", "payments", "x" * 252 + "y"), "6d0f1a2b-0000")
    assert len(one) == len(two) == 253
    assert one != two


def test_a_further_object_is_named_after_its_quarantine() -> None:
    assert further_name("serviceaccount-ci-6d0f1a", 2) == "serviceaccount-ci-6d0f1a-2"
    long = quarantine_name(Key("ServiceAccount", "payments", "x" * 253), "6d0f1a2b-0000")
    assert len(further_name(long, 9)) == 253
    assert further_name(long, 2) != further_name(long, 3)
