"""The benchmark's arithmetic, its data and the names of its figures; no time is asserted anywhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tenure.reconcile.engine import CEILING, CEILING_PER_NAMESPACE
from tests.scale import bench, figures, objects
from tests.scale.bench import OPERATOR, Floor, Run, Start
from tests.scale.figures import Requests


def a_run() -> Run:
    """The least that figures can be made of: two rounds, as noisy as a shared machine is."""
    run = Run(scale=1, idle=80.0, findings=680, findings_seconds=9.0)
    run.floors = [Floor(2.0, 1.0, 90.0, 100), Floor(4.0, 1.0, 92.0, 110)]
    first, again = Requests({("patch", "identityfindings"): 680}), Requests({("list", "secrets"): 12})
    run.starts = [Start(5.0, 2.0, 20.0, 9.0, 120.0, 130.0, first), Start(6.0, 2.0, 12.0, 5.0, 118.0, 120.0, again)]
    run.quiet = Requests({("watch", "secrets"): 1})
    run.forced = Requests({("patch", "governancepolicies/status"): 1})
    run.changes = run.burst = run.disturbed = [0.01 * n for n in range(1, 201)]
    run.scrapes, run.open_tokens, run.guarded_tokens = [0.03], [0.004], [0.005]
    run.free_writes, run.passed_writes = [0.003], {1: [0.004], bench.ENTRIES: [0.004]}
    return run


def test_the_document_has_every_name_and_the_report_every_row() -> None:
    run = a_run()
    document = bench.document(run)
    assert tuple(run.figures()) == figures.NAMES
    assert [name for name in document if name not in ("scale", "details")] == list(figures.NAMES)
    assert set(figures.AIMS) <= set(figures.NAMES)
    assert all(what in bench.report(run) for what in bench._WHAT.values())


def test_the_figures() -> None:
    found = a_run().figures()
    assert found["inventory_ratio"] == 2.0  # the median of 2.5 and 1.5, not the ratio of two medians
    assert found["memory_above_idle_mib"] == 40.0
    assert found["change_to_finding_p50_seconds"] == 1.0
    assert found["change_to_finding_p99_seconds"] == 1.98
    assert found["unchanged_pass_writes"] == found["unchanged_pass_lists"] == 0  # a start lists: that is no pass
    assert found["guard_ratio"] == 1.25
    assert found["deny_writes_ratio"] == 1.0


def test_a_write_on_an_unchanged_cluster_shows() -> None:
    run = a_run()
    run.starts[1].requests["create", "events"] += 1
    run.quiet["list", "pods"] += 2
    assert run.figures()["unchanged_pass_writes"] == 1
    assert run.figures()["unchanged_pass_lists"] == 2


def event(
    verb: str, resource: str, stage: str = "ResponseComplete", user: str = OPERATOR, **ref: str
) -> dict[str, Any]:
    return {"verb": verb, "stage": stage, "user": {"username": user}, "objectRef": {"resource": resource, **ref}}


def test_requests_are_counted_once_and_the_operators_alone() -> None:
    events = [
        event("patch", "identityfindings"),
        event("patch", "ownedidentities", subresource="status"),
        event("watch", "secrets", "ResponseStarted"),
        event("watch", "secrets"),  # its end
        event("list", "secrets"),
        event("create", "selfsubjectaccessreviews"),
        event("list", "secrets", user="somebody"),
        event("create", "pods", namespace="tenure-system") | {"requestURI": "/api/v1/pods?dryRun=All"},
        event("patch", "secrets", namespace="tenure-system", name="tenure-proof"),
    ]
    found = figures.requests(events, OPERATOR)
    assert found == {
        ("patch", "identityfindings"): 1,
        ("patch", "ownedidentities/status"): 1,
        ("watch", "secrets"): 1,
        ("list", "secrets"): 1,
        ("create", "selfsubjectaccessreviews"): 1,
        ("create", "pods (proof)"): 1,
        ("patch", "secrets (proof)"): 1,
    }
    assert figures.writes(found).total() == 2
    assert figures.lists(found).total() == 1


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.99, 4), (1.0, 4)])
def test_percentiles_are_values_that_were_seen(share: float, expected: float) -> None:
    assert figures.percentile([4, 1, 3, 2], share) == expected


def test_nothing_seen_is_an_error() -> None:
    for function in (figures.median, lambda values: figures.percentile(values, 0.5)):
        with pytest.raises(ValueError):
            function([])


def test_numbers_and_tables_read_well() -> None:
    assert [figures.number(value) for value in (0, 0.01234, 1.234, 99.94, 12345.6)] == [
        "0",
        "0.0123",
        "1.23",
        "99.9",
        "12,346",
    ]
    assert figures.table(("a", "b"), [("one", "1")]) == "| a   |   b |\n| --- | --: |\n| one |   1 |"


def test_the_data_have_the_contracts_size() -> None:
    assert objects.counts(1) == {"ServiceAccounts": 2_000, "Secrets": 6_000, "bindings": 1_000, "Pods": 3_000}
    assert objects.counts(10) == {"ServiceAccounts": 20_000, "Secrets": 60_000, "bindings": 10_000, "Pods": 30_000}
    kinds = Counter(manifest["kind"] for wave in objects.waves(1) for _, manifest in wave.objects)
    assert kinds["ServiceAccount"] == 2_000
    assert kinds["Secret"] == 6_000
    assert kinds["RoleBinding"] + kinds["ClusterRoleBinding"] == 1_000
    assert kinds["Pod"] == 3_000


def test_no_two_objects_have_one_name() -> None:
    names = [(path, manifest["metadata"]["name"]) for wave in objects.waves(1) for path, manifest in wave.objects]
    assert len(names) == len(set(names))


def test_the_findings_stay_below_the_ceiling() -> None:
    changes = bench.CHANGES + bench.DISTURBED + bench.BURST
    assert objects.findings(10) + changes < CEILING
    per_namespace = objects.APPLICATIONS + objects.ACCOUNTS + objects.SECRETS
    assert max(changes, per_namespace) < CEILING_PER_NAMESPACE
