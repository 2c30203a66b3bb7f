"""Grades of a role's rules: the rows of the RBAC risk table that they fulfil.

The rows are R01–R07, R11, R12, R15 and R16 of the contract's table (reference/ecosystem.md §6). A rule is read as the
API server's RBAC authorizer reads it (verified on it): `*` matches every verb, group or resource with all their
subresources; `*/exec` matches that subresource of everything; `pods/*` matches nothing. Names (`resourceNames`) narrow
requests that carry a name; a create and a deletecollection carry none, so such a rule grants them to nobody; a list
or watch by name is a read of the named objects.

Rules of one role count together (creating Secrets and reading them may stand in two rules). What a row says about the
namespace it is used in, such as R11 beside a critical ServiceAccount, is the reader's part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from tenure.api.names import GROUP
from tenure.model.records import Grade

_CORE = ""
_RBAC = "rbac.authorization.k8s.io"
_AUTHENTICATION = "authentication.k8s.io"

_WORKLOADS = (
    (_CORE, "pods"),
    (_CORE, "replicationcontrollers"),
    ("apps", "deployments"),
    ("apps", "daemonsets"),
    ("apps", "statefulsets"),
    ("apps", "replicasets"),
    ("batch", "jobs"),
    ("batch", "cronjobs"),
)
_INTO_PODS = (
    # GET counts too: before 1.35 it opens them over WebSocket
    ("pods/exec", ("create", "get")),
    ("pods/attach", ("create", "get")),
    ("pods/portforward", ("create", "get")),
    ("pods/ephemeralcontainers", ("update", "patch")),
)
_NAMES_SHOWN = 3

_DECISIONS: Mapping[str, tuple[str, ...]] = {
    "identityexceptions": ("approve", "reject", "attest", "force"),
    "ownedidentities": ("attest",),
    "identityfindings": ("quarantine", "revoke"),
    "quarantines": ("release",),
}
"""The virtual verbs that decide about each kind; a party's own (`approve-security`) count with them. `consult`
is not among them: it is heard, and decides nothing."""


class _Reach(IntEnum):
    """How far a grant goes."""

    NONE = 0
    NAMED = 1
    ALL = 2


class _Rule(NamedTuple):
    groups: frozenset[str]
    resources: frozenset[str]
    verbs: frozenset[str]
    names: tuple[str, ...]

    def covers(self, group: str, resource: str) -> bool:
        if group not in self.groups and "*" not in self.groups:
            return False
        _, separator, subresource = resource.partition("/")
        return (
            "*" in self.resources
            or resource in self.resources
            or (bool(separator) and f"*/{subresource}" in self.resources)
        )

    def grants(self, verb: str) -> bool:
        return verb in self.verbs or "*" in self.verbs

    @property
    def everything(self) -> bool:
        """`*` on `*` of every group, unnarrowed."""
        return "*" in self.groups and "*" in self.resources and "*" in self.verbs and not self.names


def _strings(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _parse(raw: Iterable[Mapping[str, Any]]) -> list[_Rule]:
    return [
        _Rule(
            frozenset(_strings(rule.get("apiGroups"))),
            frozenset(_strings(rule.get("resources"))),
            frozenset(_strings(rule.get("verbs"))),
            _strings(rule.get("resourceNames")),
        )
        for rule in raw
        if rule.get("resources")  # a rule on nonResourceURLs has none
    ]


class _Role:
    """The questions a row asks of a role's rules."""

    def __init__(self, rules: list[_Rule]) -> None:
        self._rules = rules

    def reach(self, group: str, resource: str, verb: str) -> _Reach:
        found = _Reach.NONE
        for rule in self._rules:
            if not rule.grants(verb) or not rule.covers(group, resource):
                continue
            if not rule.names:
                return _Reach.ALL
            nameless = verb == "deletecollection" or (verb == "create" and "/" not in resource)
            if not nameless:
                found = _Reach.NAMED
        return found

    def granted(self, group: str, resource: str, verbs: Collection[str]) -> tuple[_Reach, list[str]]:
        """The furthest reach among verbs, and those of them that have any."""
        reaches = [(self.reach(group, resource, verb), verb) for verb in verbs]
        return max(reach for reach, _ in reaches), [verb for reach, verb in reaches if reach]

    def names(self, group: str, resource: str, verb: str) -> str:
        """The names that narrow a grant, for a person; "" when nothing does."""
        if self.reach(group, resource, verb) is not _Reach.NAMED:
            return ""
        names = sorted(
            {name for rule in self._rules if rule.grants(verb) and rule.covers(group, resource) for name in rule.names}
        )
        more = ", …" if len(names) > _NAMES_SHOWN else ""
        return f" ({', '.join(names[:_NAMES_SHOWN])}{more})"


def grade(rules: object) -> tuple[Grade, ...]:
    """The rows that a role's `rules` (as JSON, None allowed) fulfil, in the order of the table, each once.

    `*` on `*` is R01, beside it only R11 is given (who may create pods reaches every ServiceAccount of the namespace);
    the other rows would say less of the same.
    """
    parsed = _parse(rule for rule in rules if isinstance(rule, Mapping)) if isinstance(rules, list) else []
    if not parsed:
        return ()
    role = _Role(parsed)
    if any(rule.everything for rule in parsed):
        return _shared((Grade("R01", "Critical", "High", "every verb on every resource"), *_workloads(role)))
    return _shared(
        (
            *_escalate(role),
            *_bind(role),
            *_impersonate(role, parsed),
            *_tokens(role),
            *_mint(role),
            *_read_secrets(role),
            *_workloads(role),
            *_into_pods(role),
            *_delete_everything(parsed),
            *_read_everything(parsed),
        )
    )


def _escalate(role: _Role) -> Iterable[Grade]:
    """R02. On clusterroles it works through a cluster binding only."""
    kinds = [kind for kind in ("roles", "clusterroles") if role.reach(_RBAC, kind, "escalate")]
    if kinds:
        yield Grade("R02", "Critical", "Critical" if "roles" in kinds else "", f"escalate {', '.join(kinds)}")


def _bind(role: _Role) -> Iterable[Grade]:
    """R03, with or without the right to write bindings, which commonly comes with another role. A RoleBinding to a
    ClusterRole asks for `bind` in its namespace, so both kinds count there. Names do not lower it: the role named
    may be any."""
    both = ("roles", "clusterroles")
    kinds = [f"{kind}{role.names(_RBAC, kind, 'bind')}" for kind in both if role.reach(_RBAC, kind, "bind")]
    if kinds:
        yield Grade("R03", "Critical", "High", f"bind {', '.join(kinds)}")


def _impersonate(role: _Role, rules: list[_Rule]) -> Iterable[Grade]:
    """R04. Only ServiceAccounts are impersonated within a namespace; users and groups belong to the cluster."""
    targets = ((_CORE, "users"), (_CORE, "groups"), (_CORE, "serviceaccounts"), (_AUTHENTICATION, "uids"))
    kinds = [
        f"{kind}{role.names(group, kind, 'impersonate')}"
        for group, kind in targets
        if role.reach(group, kind, "impersonate")
    ]
    if any(rule.grants("impersonate") and _covers_extras(rule) for rule in rules):
        kinds.append("userextras")
    if kinds:
        namespaced = "High" if role.reach(_CORE, "serviceaccounts", "impersonate") else ""
        yield Grade("R04", "Critical", namespaced, f"impersonate {', '.join(kinds)}")


def _covers_extras(rule: _Rule) -> bool:
    """Whether the rule covers an extra field, which is a subresource of any name (`userextras/scopes`)."""
    named = (resource for resource in rule.resources if resource.startswith("userextras/"))
    return any(rule.covers(_AUTHENTICATION, resource) for resource in ("userextras", *named))


def _tokens(role: _Role) -> Iterable[Grade]:
    """R05."""
    reach = role.reach(_CORE, "serviceaccounts/token", "create")
    names = role.names(_CORE, "serviceaccounts/token", "create")
    if reach is _Reach.ALL:
        yield Grade("R05", "Critical", "High", "create serviceaccounts/token")
    elif reach is _Reach.NAMED:
        yield Grade("R05", "Low", "Low", f"create serviceaccounts/token{names}")


def _mint(role: _Role) -> Iterable[Grade]:
    """R06: a token Secret is created and read. A read narrowed to names does: the creator picks the name."""
    reach, _ = role.granted(_CORE, "secrets", ("get", "list", "watch"))
    if reach and role.reach(_CORE, "secrets", "create"):
        yield Grade("R06", "Critical", "High", "create secrets and read them")


def _read_secrets(role: _Role) -> Iterable[Grade]:
    """R07."""
    reach, verbs = role.granted(_CORE, "secrets", ("get", "list", "watch"))
    if reach is _Reach.ALL:
        yield Grade("R07", "Critical", "High", f"{', '.join(verbs)} secrets")
    elif reach is _Reach.NAMED:
        yield Grade("R07", "Medium", "Medium", f"{', '.join(verbs)} secrets{role.names(_CORE, 'secrets', verbs[0])}")


def _workloads(role: _Role) -> Iterable[Grade]:
    """R11."""
    kinds = [resource for group, resource in _WORKLOADS if role.reach(group, resource, "create")]
    if kinds:
        yield Grade("R11", "High", "High", f"create {', '.join(kinds)}")


def _into_pods(role: _Role) -> Iterable[Grade]:
    """R12."""
    ways = [
        f"{verbs[0]} {resource}"
        for resource, wanted in _INTO_PODS
        if (verbs := role.granted(_CORE, resource, wanted)[1])
    ]
    if ways:
        yield Grade("R12", "High", "Medium", ", ".join(ways))


def _on_everything(rules: list[_Rule], verbs: Collection[str]) -> list[str]:
    """Those of verbs that a rule grants on `*` of the core group, unnarrowed."""
    wide = [rule for rule in rules if "*" in rule.resources and rule.groups & {"*", _CORE} and not rule.names]
    return [verb for verb in verbs if any(rule.grants(verb) for rule in wide)]


def _delete_everything(rules: list[_Rule]) -> Iterable[Grade]:
    """R15."""
    if verbs := _on_everything(rules, ("delete", "deletecollection")):
        yield Grade("R15", "High", "Medium", f"{', '.join(verbs)} every resource")


def _read_everything(rules: list[_Rule]) -> Iterable[Grade]:
    """R16."""
    if verbs := _on_everything(rules, ("get", "list")):
        yield Grade("R16", "High", "Medium", f"{', '.join(verbs)} every resource")


def decides(rules: object) -> tuple[str, ...]:
    """The decision verbs that a role's `rules` grant by name on Tenure's kinds, sorted. A rule with the verb `*` grants
    them too, but nobody bound to it was thereby asked to decide: those holders are what governance must not rest on."""
    found: set[str] = set()
    for rule in rules if isinstance(rules, list) else ():
        if not isinstance(rule, Mapping) or not {GROUP, "*"} & set(_strings(rule.get("apiGroups"))):
            continue
        resources = set(_strings(rule.get("resources")))
        known = {verb for kind, verbs in _DECISIONS.items() if {kind, "*"} & resources for verb in verbs}
        found.update(verb for verb in _strings(rule.get("verbs")) if verb in known or _party(verb) in known)
    if len(_VERBS) >= _SHARED_LIMIT:
        _VERBS.clear()
    verbs = tuple(sorted(found))
    return _VERBS.setdefault(verbs, verbs)


def _party(verb: str) -> str:
    """`approve` for `approve-security`; "" where the verb is no party's. `force` has no parties."""
    word, separator, _ = verb.partition("-")
    return word if separator and word != "force" else ""


_VERBS: dict[tuple[str, ...], tuple[str, ...]] = {}
_SHARED: dict[tuple[Grade, ...], tuple[Grade, ...]] = {}
_SHARED_LIMIT = 4_096


def _shared(grades: tuple[Grade, ...]) -> tuple[Grade, ...]:
    """One tuple for all roles with equal grades: thousands of namespaces carry the same few roles."""
    if len(_SHARED) >= _SHARED_LIMIT:
        _SHARED.clear()
    return _SHARED.setdefault(grades, grades)
