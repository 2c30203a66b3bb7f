"""What every kind is built from: the frozen model, durations, timestamps, bounded text, label selectors, CEL rules.

The models are the single source of the CRDs (`tenure.api.crd`): a bound, an enum or a CEL rule is written once, on
the field or model it belongs to, and stands in the generated schema. Two sorts of text are kept apart on purpose. What
people write is *refused* when it is too long; what the operator writes (statuses) is *clipped*, because a long message
must never keep a finding from being stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tenure.api.names import SelectorOperator

VALIDATIONS: Final = "x-kubernetes-validations"
CRD_DEFAULT: Final = "x-tenure-crd-default"
"""Marks a field whose model default the API server writes too; the generator consumes the mark."""


def _alias(name: str) -> str:
    """`class_` -> `class`: a trailing underscore only keeps Python's keywords away."""
    return to_camel(name.rstrip("_"))


class ApiModel(BaseModel):
    """A piece of an API object: frozen, closed, camelCase on the wire and snake_case in Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=_alias,
        populate_by_name=True,
        use_attribute_docstrings=True,  # what `kubectl explain` shows
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        # CPython keeps the names of attributes that are set one by one once for the class (see `projection._compact`),
        # but leaves less room for new ones with every object made before: so all of them are set before there is any.
        first = cls.__new__(cls)
        for field in cls.model_fields:
            object.__setattr__(first, field, None)

    @classmethod
    def read(cls, raw: Mapping[str, Any] | None) -> Self:
        """The model of a wire object (`spec` or `status`; None reads as empty). Raises pydantic.ValidationError."""
        return cls.model_validate({} if raw is None else raw)

    def wire(self) -> dict[str, Any]:
        """The JSON-ready object as the API server takes it; what is None is not written."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class Cel:
    """A CEL rule of the CRD, attached to a field with `Annotated`; `message` is what the author of an object reads."""

    rule: str
    message: str
    field_path: str | None = None
    """The field the API server names in its refusal, where the rule stands above it (`.spec.backup`)."""

    def entry(self) -> dict[str, str]:
        """The rule as an `x-kubernetes-validations` item."""
        entry = {"rule": self.rule, "message": self.message}
        if self.field_path is not None:
            entry["fieldPath"] = self.field_path
        return entry

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        # A nested model comes as {"$ref": …}; the generator merges keys beside it, never into the shared definition.
        return {**schema, VALIDATIONS: [*schema.get(VALIDATIONS, []), self.entry()]}


@dataclass(frozen=True)
class Schema:
    """Schema keys laid over a field's own (list types, formats), attached with `Annotated`."""

    extra: Mapping[str, Any]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), **self.extra}

    def __hash__(self) -> int:
        return hash(tuple(sorted(map(str, self.extra))))


def rules(*entries: Cel) -> dict[str, Any]:
    """`json_schema_extra` of a model that carries CEL rules of its own."""
    return {VALIDATIONS: [entry.entry() for entry in entries]}


SERVER_DEFAULT: Final = Schema({CRD_DEFAULT: True})
"""The API server writes this field's default: documented scalars outside lists, where no GitOps tool sees drift."""

MAP_TYPE: Final = "x-kubernetes-map-type"
WHOLE: Final = Schema({MAP_TYPE: "atomic"})
"""A map that server-side apply replaces whole: `managedFields` then names the map, not each of its keys."""

SET: Final = Schema({"x-kubernetes-list-type": "set"})
ATOMIC: Final = Schema({"x-kubernetes-list-type": "atomic"})


def keyed(*keys: str) -> Schema:
    """A list that server-side apply merges per key."""
    return Schema({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)})


# --- durations --------------------------------------------------------------------------------------------------------

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
# The number of digits per unit keeps every duration below 320 years: a date plus a duration stays a date.
_POSITIVE: Final = "[1-9][0-9]{0,4}d|[1-9][0-9]{0,6}h|[1-9][0-9]{0,7}m|[1-9][0-9]{0,9}s"
_DURATION: Final = re.compile(f"^(?:0[smhd]|{_POSITIVE})$")
_HOURS_UP_TO: Final = 4 * _UNITS["d"]


def parse_duration(value: object) -> timedelta:
    """`90d`, `36h`, `15m`, `30s`, `0s`, or a timedelta of whole, non-negative seconds. Raises ValueError."""
    if isinstance(value, timedelta):
        if value < timedelta(0) or value.microseconds:
            raise ValueError("a duration has whole seconds and is not negative")
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError("not a duration such as 90d, 36h, 15m or 30s")
    return timedelta(seconds=int(value[:-1]) * _UNITS[value[-1]])


def format_duration(value: timedelta) -> str:
    """The shortest exact form: whole days from four days on, else hours, minutes, seconds (`72h`, `7d`, `90m`)."""
    seconds = int(value.total_seconds())
    if seconds == 0:
        return "0s"
    for unit in "dhm":
        if seconds % _UNITS[unit] == 0 and (unit != "d" or seconds >= _HOURS_UP_TO):
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"


def _more_than_nothing(value: object) -> timedelta:
    parsed = parse_duration(value)
    if not parsed:
        raise ValueError("must be longer than 0s")
    return parsed


_SERIALISE_DURATION: Final = PlainSerializer(format_duration, return_type=str, when_used="json")
_DURATION_SCHEMA: Final = {"type": "string", "minLength": 2, "maxLength": 11}

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    _SERIALISE_DURATION,
    WithJsonSchema(_DURATION_SCHEMA),
    Cel(
        f"self.matches('^(0[smhd]|{_POSITIVE})$')",
        "must be a duration such as 90d, 36h, 15m or 30s, not negative; 0s says none",
    ),
]
"""Zero allowed: only for adoptionGrace, holdAfterUse and stageInterval, where `0s` says "none" on purpose."""

PositiveDuration = Annotated[
    timedelta,
    BeforeValidator(_more_than_nothing),
    _SERIALISE_DURATION,
    WithJsonSchema(_DURATION_SCHEMA),
    Cel(
        f"self.matches('^({_POSITIVE})$')",
        "must be a duration such as 90d, 36h, 15m or 30s, longer than nothing and not negative",
    ),
]
"""Deadlines never default to zero (contract §5.10), so they cannot be written as zero either."""

# --- timestamps -------------------------------------------------------------------------------------------------------

_FRACTION: Final = re.compile(r"(\.\d{6})\d+")


def parse_timestamp(value: object) -> datetime:
    """RFC 3339 text or an aware datetime -> the instant in UTC; nanoseconds are cut. Raises ValueError."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(_FRACTION.sub(r"\1", value))
        except ValueError as error:
            raise ValueError("not an RFC 3339 date such as 2027-01-31T00:00:00Z") from error
    if not isinstance(value, datetime):
        raise ValueError("not an RFC 3339 date such as 2027-01-31T00:00:00Z")
    if value.tzinfo is None:
        raise ValueError("a date needs its time zone: write it in UTC, as 2027-01-31T00:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("outside the years 1 to 9999 in UTC") from error


def format_timestamp(value: datetime) -> str:
    """RFC 3339 with Z; microseconds only where there are any, so that a stored date reads back as the same text."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


_SERIALISE_TIMESTAMP: Final = PlainSerializer(format_timestamp, return_type=str, when_used="json")

Timestamp = Annotated[
    datetime,
    BeforeValidator(parse_timestamp),
    _SERIALISE_TIMESTAMP,
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 40}),
]
"""An instant in UTC, as the operator writes it."""

Date = Annotated[
    datetime,
    BeforeValidator(parse_timestamp),
    _SERIALISE_TIMESTAMP,
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 40}),
    # Without a far end, a date that says "never" (year 9999) would overflow as soon as a retention is added to it; the
    # year 0, which the API server's format knows, is none in Python.
    Cel(
        "self >= timestamp('1970-01-01T00:00:00Z') && self < timestamp('3000-01-01T00:00:00Z')",
        "must lie between the years 1970 and 3000",
    ),
]
"""An instant in UTC, as people write it. The past is accepted and counts as expired: a restore from Git must work."""

# --- bounded text -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """Cuts text that the operator writes to its bound, so that the API server never refuses a status for its length."""

    limit: int

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        def cut(value: object) -> object:
            if isinstance(value, str) and len(value) > self.limit:
                return value[: self.limit - 1] + "…"
            return value

        return core_schema.no_info_before_validator_function(cut, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), "maxLength": self.limit}


@dataclass(frozen=True)
class First:
    """Keeps the first `limit` items of a list that the operator writes."""

    limit: int

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        def cut(value: object) -> object:
            return value[: self.limit] if isinstance(value, (list, tuple)) else value

        return core_schema.no_info_before_validator_function(cut, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), "maxItems": self.limit}


_DNS_SUBDOMAIN: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

Name = Annotated[str, Field(min_length=1, max_length=253)]
"""A name of an object (RBAC names are freer than DNS, so no pattern)."""

Namespace = Annotated[str, Field(min_length=1, max_length=63, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
OwnerName = Annotated[str, Field(min_length=1, max_length=63, pattern=_DNS_SUBDOMAIN)]
"""An IdentityOwner's name; it becomes the value of a label, hence 63."""

Uid = Annotated[str, Field(min_length=1, max_length=128)]
User = Annotated[str, Field(min_length=1, max_length=1024)]
Line = Annotated[str, Field(min_length=1, max_length=253)]
Prose = Annotated[str, Field(min_length=1, max_length=1024)]
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
Count = Annotated[int, Field(ge=0, le=2_147_483_647)]
Generation = Annotated[int, Field(ge=1, le=9_007_199_254_740_991)]
"""metadata.generation of an object, or spec.revision of a finding: which state of it is meant."""

ShortText = Annotated[str, Clip(64)]
NameText = Annotated[str, Clip(512)]
LineText = Annotated[str, Clip(200)]
ProseText = Annotated[str, Clip(512)]

# --- label selectors --------------------------------------------------------------------------------------------------


class LabelSelectorRequirement(ApiModel):
    """One expression of a label selector."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 "
                ": !has(self.values) || size(self.values) == 0",
                "In and NotIn need values; Exists and DoesNotExist take none",
            )
        )
    )

    key: LabelKey
    operator: SelectorOperator
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64), ATOMIC] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """As the API server evaluates it: NotIn and DoesNotExist hold for an absent key."""
        match self.operator:
            case SelectorOperator.IN:
                return labels.get(self.key) in self.values
            case SelectorOperator.NOT_IN:
                return labels.get(self.key) not in self.values
            case SelectorOperator.EXISTS:
                return self.key in labels
            case SelectorOperator.DOES_NOT_EXIST:
                return self.key not in labels


class LabelSelector(ApiModel):
    """All of its labels and expressions hold; an empty one matches everything."""

    match_labels: Annotated[
        dict[str, LabelValue],
        Field(max_length=64),
        Cel("self.all(key, size(key) > 0 && size(key) <= 317)", "a label key has 1 to 317 characters"),
    ] = Field(default_factory=dict)
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=32), ATOMIC] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            expression.matches(labels) for expression in self.match_expressions
        )


# --- kinds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A printer column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True)
class Kind:
    """What the generator needs to know of a kind beside its models."""

    kind: str
    plural: str
    singular: str
    short_name: str
    namespaced: bool
    description: str
    spec: type[ApiModel]
    status: type[ApiModel] | None
    status_subresource: bool
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    rules: tuple[Cel, ...] = ()
