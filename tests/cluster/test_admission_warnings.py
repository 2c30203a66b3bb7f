"""A date in the past is accepted, and its author is told."""

from __future__ import annotations

import pytest

from tests.cluster.tenure_objects import claim, exception
from tests.support.cluster import Cluster, Json

PAST, FUTURE = "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("manifest", "warned"),
    [
        (exception("{}", expiresAt=PAST), "spec.expiresAt lies in the past"),
        (exception("{}", expiresAt=FUTURE, reviewBy=PAST), "spec.reviewBy lies in the past"),
        (exception("{}", expiresAt=FUTURE), ""),
        (claim("{}", expiresAt=PAST), "spec.expiresAt lies in the past"),
        (claim("{}"), ""),
    ],
)
def test_a_past_date_is_a_warning_and_no_refusal(
    installed: Cluster, namespace: str, manifest: Json, warned: str
) -> None:
    placed = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
    done = installed.kubectl("apply", "-f", "-", input=placed)
    assert done.returncode == 0
    assert ("lies in the past" in done.stderr) == bool(warned)
    assert warned in done.stderr
