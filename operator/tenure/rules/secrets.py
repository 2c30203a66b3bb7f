"""Which Secrets are credentials: by type, else by what their keys are called. No value is ever read."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from tenure.api.names import TYPE_SERVICE_ACCOUNT_TOKEN
from tenure.model.records import Secret

TYPES: Final = frozenset(
    {
        TYPE_SERVICE_ACCOUNT_TOKEN,
        "kubernetes.io/tls",
        "kubernetes.io/basic-auth",
        "kubernetes.io/ssh-auth",
        "kubernetes.io/dockercfg",
        "kubernetes.io/dockerconfigjson",
        "bootstrap.kubernetes.io/token",
    }
)
"""Types that are credentials whatever their keys are called."""

HELM_RELEASE: Final = "helm.sh/release.v1"
"""Helm's record of a release: its one key, `release`, is no credential, whatever the chart contains."""

# --- key names
# A name is judged by its words: "clientSecret", "CLIENT_SECRET" and "client-secret.txt" are the same.

_WORD: Final = re.compile(r"[A-Z0-9]+(?![a-z])|[A-Z]?[a-z0-9]+")
_NUMBER: Final = re.compile(r"(?<=[a-z])\d+(?=-|$)")

_WHOLE: Final = frozenset(
    {
        "key",
        "auth",
        "env",
        "dockerconfigjson",
        "dockercfg",
        "netrc",
        "pgpass",
        "key-json",
        "service-account-json",
        "sa-json",
    }
)
"""Key names that say it only when they stand alone (`auth` is the htpasswd file of ingress-nginx)."""

_SECRET: Final = re.compile(
    r"(?:^|-)(?:"
    # the plain words, also at the end of a compound that has no separator: "pgpassword", "authtoken", "clientsecret"
    r"[a-z]*(?:tokens?|passwords?|passwd|passphrase|secrets?|credentials?|apikeys?|privatekeys?|secretkeys?|accesskeys?)"
    r"|creds|pwd|jwt|htpasswd|keystore|kube-?config|dsn|privkey|pass$|(?:db|user|root|admin|smtp)pass"
    r"|(?:api|private|secret|access|account|auth|encryption|master|session|shared|service|signing|ssh|storage|hmac)-keys?"
    r"|(?:gcp|gcs|google|sa|aws|azure)-keys?"
    r"|conn(?:ection)?-?str(?:ing)?s?"
    r"|id-(?:rsa|dsa|ecdsa|ed)"
    r")(?:-|$)"
)
_ADDRESS: Final = re.compile(
    r"(?:^|-)(?:webhooks?|database|db|jdbc|redis|mongo(?:db)?|postgres(?:ql)?|mysql|amqp|rabbitmq|broker|connection)-?ur[li]s?$"
    r"|(?:^|-)webhooks?$"
)
"""Addresses that usually carry the password or are the credential themselves (a chat webhook)."""

_PUBLIC: Final = re.compile(r"(?:^|-)(?:pub|public|publickey|pubkey)(?:-|$)")
_CERTIFICATE: Final = re.compile(
    r"(?:^|-)(?:ca|cacert|certs?|certificates?|crl|csr|chain|fullchain|bundle|root|dhparams?)(?:-|$)"
)
_CERTIFICATE_FILE: Final = (".crt", ".cer", ".csr", ".crl")
_ABOUT: Final = re.compile(
    r"-(?:ur[li]s?|endpoint|host|hostname|port|names?|namespace|ttl|expiry|expires|expiration|policy|length|type|issuer|audience"
    r"|enabled|version|path|dir|ref|hint|header|scopes?|algorithm|alg|id|reviewer|rotation|interval|count|lifetime)$"
)
"""Endings that make of a secret word something about it: token-url, password-policy, secretName."""
_STILL: Final = re.compile(r"(?:^|-)(?:secret-id|(?:access|api)-key-id|accesskey-id)$")
"""… but not these: Vault's secret_id is a password, and an access key's id comes with the key."""
_TEXT: Final = re.compile(r"\.(?:ya?ml|json|txt|toml|conf|cfg|ini|properties|env)$")
_KEY_FILE: Final = re.compile(r"[^.]\.(?:key|p12|pfx|jks|keytab|ppk)$")


@lru_cache(maxsize=8192)
def looks_like_credential(key: str) -> bool:
    """Whether a data key's name says that its value is a credential. Names only: values are never read."""
    file = key.lower()
    words, plain = _words(key), _words(key[: len(_TEXT.sub("", file))])
    if _PUBLIC.search(plain) or file.endswith(_CERTIFICATE_FILE):
        return False
    if _ADDRESS.search(words) or _STILL.search(plain) or words in _WHOLE:
        return True
    if file.endswith(".pem"):
        return "key" in words.split("-") or not _CERTIFICATE.search(words)
    if _KEY_FILE.search(file):
        return "truststore" not in words
    return bool(_SECRET.search(plain)) and not _ABOUT.search(plain)


def _words(key: str) -> str:
    """ "clientSecret2" -> "client-secret"."""
    return _NUMBER.sub("", "-".join(_WORD.findall(key)).lower())


@lru_cache(maxsize=16384)
def _any_key(keys: tuple[str, ...]) -> bool:
    return any(looks_like_credential(key) for key in keys)


def is_credential(secret: Secret) -> bool:
    """By its type, else (Opaque and unknown types) by the names of its keys. A Secret whose key names no manager
    recorded is inventoried and raises nothing."""
    if secret.type in TYPES:
        return True
    return secret.type != HELM_RELEASE and _any_key(secret.keys)


def is_token(secret: Secret) -> bool:
    """Whether it holds a ServiceAccount's legacy token."""
    return secret.type == TYPE_SERVICE_ACCOUNT_TOKEN
