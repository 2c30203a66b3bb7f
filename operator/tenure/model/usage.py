"""Who asked the API server for what, as an audit source tells it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tenure.model.keys import Key

SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Use:
    """One use: when, by whom, and from where as far as that is known ("")."""

    at: datetime
    by: str
    source: str = ""
    """The client's address."""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One answered request. Every text is bounded and printable: a client chooses most of them."""

    id: str
    """Of the request, but clients may choose it: together with `received` it is one request's."""
    received: datetime
    ended: datetime
    """When what is told here was over: of a watch, also when it was closed."""
    user: str
    """As whom it was judged: the impersonated user where there is one; "" of a request that was answered 401."""
    uid: str = ""
    by: str = ""
    """The user in words: who impersonates whom, and of which pod the token is."""
    requester: str = ""
    """Who was authenticated."""
    source: str = ""
    agent: str = ""
    verb: str = ""
    resource: str = ""
    """The plural, with the subresource: serviceaccounts/token."""
    namespace: str = ""
    name: str = ""
    code: int = 0
    secret: str = ""
    """The token Secret, in the ServiceAccount's namespace, that a legacy token proved itself with."""
    binding: Key | None = None
    """The binding that RBAC named as the reason for allowing it: the first that did, of perhaps several."""
    quarantine: tuple[str, str] | None = None
    """The Quarantine (namespace, name) that one of Tenure's guards named when it refused the request."""

    @property
    def account(self) -> tuple[str, str] | None:
        """Namespace and name of the ServiceAccount as which it was judged."""
        namespace, separator, name = self.user.removeprefix(SERVICE_ACCOUNT).partition(":")
        return (namespace, name) if separator and self.user.startswith(SERVICE_ACCOUNT) else None

    @property
    def what(self) -> str:
        """In words: `create serviceaccounts/token shop/ci`."""
        place = "/".join(part for part in (self.namespace, self.name) if part)
        return " ".join(part for part in (self.verb, self.resource, place) if part)

    def use(self, at: datetime | None = None) -> Use:
        """Itself as a use."""
        return Use(at or self.ended, self.by, self.source, self.agent)
