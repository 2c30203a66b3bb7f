"""Which Secrets are credentials, and the rules on them: LegacyToken, CredentialTooOld."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tenure.api.names import Risk
from tenure.rules.secrets import looks_like_credential
from tests.unit.rules.world import BEGIN, DAY, NOW, World, rules_of, violation

CREDENTIALS = """
    token access_token accessToken github-token GITHUB_TOKEN token.txt token1 authtoken bearer_tokens password
    PASSWORD MYSQL_ROOT_PASSWORD pgpassword passwd db-pass pwd passphrase admin-password password2 secret
    client_secret clientSecret CLIENT-SECRET clientsecret secrets.yaml jwt-secret webhook-secret secret_id
    apikey api_key api-key apiKey X_API_KEY api_key.txt stripe-api-key private_key privateKey privkey
    private-key.pem tls.key server.key ca.key key.pem server.pem privkey.pem id_rsa id_ed25519 ssh-privatekey
    signing-key encryption_key access_key AWS_ACCESS_KEY_ID aws_secret_access_key accessKey secretKey
    storage-account-key kubeconfig kubeconfig.yaml kube-config credentials credentials.json google-credentials
    gcp-key.json key.json service-account.json .dockerconfigjson .netrc .pgpass .env auth key htpasswd creds
    connection-string connectionString CONNECTION_STRING dsn SENTRY_DSN database-url DATABASE_URL redis_uri
    webhook webhook-url SLACK_WEBHOOK_URL slackWebhook keystore.jks keystore.p12 client.pfx
    truststore-password jwt
"""

OTHERS = """
    ca.crt tls.crt cert.pem ca.pem chain.pem fullchain.pem ca-bundle.pem root.pem dhparam.pem server.csr
    crl.pem public_key publicKey public.key public.pem id_rsa.pub ssh-publickey jwks.json config config.yaml
    values.yaml nginx.conf application.properties alertmanager.yaml release data value name username user
    client-id clientId tenant_id host port endpoint url namespace region account project token-url
    token_endpoint tokenTTL token-expiry password-policy passwordPolicy secretName secret-name password-length
    jwt-issuer tokenizer.json secretary bypass webhook.yaml webhook-ca.crt ca-cert truststore.jks sort-key
    partition-key primary-key cache-key kubeconfig-path
"""


@pytest.fixture
def world() -> World:
    world = World()
    world.owner()
    world.claim("all")
    return world


@pytest.mark.parametrize(
    "key",
    CREDENTIALS.split(),
)
def test_key_names_that_look_like_credentials(key: str) -> None:
    assert looks_like_credential(key)


@pytest.mark.parametrize(
    "key",
    OTHERS.split(),
)
def test_key_names_that_do_not(key: str) -> None:
    assert not looks_like_credential(key)


@pytest.mark.parametrize(
    ("type_", "keys", "credential"),
    [
        ("kubernetes.io/service-account-token", (), True),
        ("kubernetes.io/tls", ("tls.crt",), True),
        ("kubernetes.io/basic-auth", (), True),
        ("kubernetes.io/ssh-auth", (), True),
        ("kubernetes.io/dockercfg", (), True),
        ("kubernetes.io/dockerconfigjson", (), True),
        ("bootstrap.kubernetes.io/token", (), True),
        ("helm.sh/release.v1", ("release", "password"), False),
        ("Opaque", ("ca.crt", "username"), False),
        ("Opaque", ("ca.crt", "password"), True),
        ("Opaque", (), False),
        ("istio.io/key-and-cert", ("cert-chain.pem", "key.pem"), True),
        ("example.com/settings", ("config.yaml",), False),
    ],
)
def test_a_secret_is_a_credential_by_its_type_else_by_its_keys(
    type_: str, keys: tuple[str, ...], credential: bool
) -> None:
    world = World()
    judged = world.judge(world.secret("s", type=type_, keys=keys))
    assert ("Unowned" in rules_of(judged)) is credential
    if not credential:
        assert judged.violations == ()
        assert judged.next_change is None


class TestLegacyToken:
    def test_it_holds_as_long_as_the_token_secret_exists(self, world: World) -> None:
        world.account()
        found = violation(world.judge(world.token(invalid_since="2026-02-01")), "LegacyToken")
        assert found.observable == BEGIN
        assert found.risk.level is Risk.MEDIUM
        assert found.epoch is None
        assert "ServiceAccount ci" in found.message

    def test_the_last_use_is_evidence(self, world: World) -> None:
        world.account()
        found = violation(world.judge(world.token(last_used="2026-03-01")), "LegacyToken")
        used = found.evidence[1]
        assert (used.source, used.since) == ("legacy-token-last-used", BEGIN + 59 * DAY)
        assert len(violation(world.judge(world.token(last_used="whenever")), "LegacyToken").evidence) == 1

    def test_its_risk_is_its_identitys(self, world: World) -> None:
        world.account()
        token = world.token()
        world.role("root", "R01")
        world.bind("root", ns="")
        found = violation(world.judge(token), "LegacyToken")
        assert found.risk.level is Risk.CRITICAL
        assert found.risk.reasons == world.judge(token).risk.reasons
        assert "ClusterRoleBinding root-ci" in found.risk.reasons[0]

    def test_other_secrets_are_none(self, world: World) -> None:
        assert rules_of(world.judge(world.secret("s", keys=("token",)))) == []


class TestTooOld:
    def test_it_holds_from_the_last_change_of_the_data_plus_max_age_on(self, world: World) -> None:
        changed = NOW - 10 * DAY
        secret = world.secret("s", keys=("password",), data_changed=changed, data_writer="kubectl")
        judged = world.judge(secret)
        assert rules_of(judged) == []
        end = changed + 365 * DAY
        assert judged.next_change == end
        assert rules_of(world.judge(secret, end - timedelta(microseconds=1))) == []
        judged = world.judge(secret, end)
        found = violation(judged, "CredentialTooOld")
        assert found.observable == end
        assert found.epoch == changed
        assert found.evidence[0].detail == "last written by kubectl"
        assert judged.next_change is None

    def test_without_a_known_change_its_creation_counts(self, world: World) -> None:
        secret = world.secret("s", keys=("password",))
        found = violation(world.judge(secret, BEGIN + 400 * DAY), "CredentialTooOld")
        assert found.epoch == BEGIN
        assert "its creation" in found.message

    def test_the_policy_sets_max_age_and_the_claim_only_tightens_it(self, world: World) -> None:
        secret = world.secret("s", keys=("password",))
        world.policy("p", {"credentials": {"maxAge": "200d"}})
        assert world.judge(secret).next_change == BEGIN + 200 * DAY
        world.claim("all", spec={"credentials": {"maxAge": "50d"}})
        assert violation(world.judge(secret), "CredentialTooOld").observable == BEGIN + 50 * DAY
        world.claim("all", spec={"credentials": {"maxAge": "300d"}})
        assert world.judge(secret).next_change == BEGIN + 200 * DAY

    def test_a_claims_tightening_ends_with_the_claim(self, world: World) -> None:
        secret = world.secret("s", keys=("password",))
        world.claim("all", spec={"credentials": {"maxAge": "50d"}, "expiresAt": (NOW + DAY).isoformat()})
        judged = world.judge(secret)
        assert rules_of(judged) == ["CredentialTooOld"]
        assert judged.next_change == NOW + DAY
        assert rules_of(world.judge(secret, NOW + DAY)) == ["Unowned"]

    def test_two_conflicting_policies_leave_the_documented_default(self, world: World) -> None:
        secret = world.secret("s", keys=("password",))
        world.policy("p", {"credentials": {"maxAge": "10d"}})
        world.policy("q", {"credentials": {"maxAge": "20d"}})
        assert rules_of(world.judge(secret)) == []
