"""Who is let in, over a real HTTP server: names, credentials, scopes, limits, logins, the audit log, and no secret."""

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import RSAAlgorithm
from pydantic import SecretStr

from api.access.access import Access
from api.access.principals import Principal
from api.access.rules import is_open
from api.access.users import User
from api.app import create_app
from processors.errors import UnavailableError
from schemas.settings import Access as AccessSettings
from schemas.settings import Api, Issuer, Settings, Tier
from tests.api_server import Stack, serving

PASSWORD = "correct horse battery staple"


def _with(*, host: str = "0.0.0.0", **access: Any) -> Callable[[Stack], None]:
    """The settings of a server that the network reaches; the test's own listens on the loopback all the same."""

    def change(stack: Stack) -> None:
        stack.settings = Settings(api=Api(host=host, max_body_mb=1), access=AccessSettings(**access))

    return change


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with serving(change=_with(login_attempts=50)) as stack:
        stack.access.users.create(User(name="ada", tenant="acme", tier="enterprise"), SecretStr(PASSWORD))
        yield stack


def _routes() -> Iterator[tuple[str, str]]:
    for path, methods in create_app(Settings(), Stack().ports()).openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path.replace("{", "").replace("}", "")


def test_every_route_needs_a_key_beyond_the_loopback(stack: Stack) -> None:
    routes = [*_routes(), ("GET", "/openapi.json"), ("GET", "/nowhere")]
    assert len(routes) > 20
    for method, path in routes:
        if not is_open(path):
            response = stack.http.request(method, path)
            assert (response.status_code, path) == (401, path)
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="aegis"'
            assert response.headers["Content-Type"] == "application/problem+json"
    assert stack.http.get("/health/live").json() == {"status": "live"}
    assert stack.http.get("/health/ready").status_code == 200
    assert stack.http.get("/consoles").status_code == 401  # only the console itself is open


def test_a_key_is_taken_from_either_header(stack: Stack) -> None:
    headers = stack.token()
    token = headers["Authorization"].removeprefix("Bearer ")
    for shown in (headers, {"X-API-Key": token}, {"Authorization": f"bearer  {token}"}):
        assert stack.http.get("/api/v1/formats", headers=shown).status_code == 200
    for wrong in ({"X-API-Key": token + "x"}, {"Authorization": f"Basic {token}"}, {"Authorization": "Bearer"}):
        assert stack.http.get("/api/v1/formats", headers=wrong).status_code == 401
    assert stack.http.get("/api/v1/formats", params={"key": token, "api_key": token}).status_code == 401


def test_the_body_of_who_is_refused_is_not_read(stack: Stack) -> None:
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as connection:
        length = 1_000_000
        connection.sendall(f"POST /api/v1/documents HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        assert connection.recv(20).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    ("scopes", "may"),
    [({"read"}, {"read"}), ({"write"}, {"write"}), ({"admin"}, {"admin"}), ({"read", "write"}, {"read", "write"})],
)
def test_a_scope_is_needed(stack: Stack, scopes: set[str], may: set[str]) -> None:
    headers = stack.token(scopes=frozenset(scopes))
    asked = {
        "read": stack.http.post("/api/v1/search", json={"query": "q"}, headers=headers),
        "write": stack.http.post("/api/v1/documents", json={"text": "t"}, headers=headers),
        "admin": stack.http.get("/api/v1/keys", headers=headers),
    }
    assert {scope for scope, response in asked.items() if response.is_success} == may
    assert {response.status_code for scope, response in asked.items() if scope not in may} == {403}


def test_the_whole_installation_is_not_a_tenants_business(stack: Stack) -> None:
    mine, whole = stack.token(tenant="acme"), stack.token()
    for path in ("/health", "/metrics", "/api/v1/lag"):
        assert stack.http.get(path, headers=mine).status_code == 403
        assert stack.http.get(path, headers=whole).status_code == 200


def test_reasons_are_for_who_may_know_them(stack: Stack) -> None:
    stack.healths["embed"] = {"ready": False, "reason": "http://internal:6333 is down"}
    try:
        for headers in ({}, stack.token(tenant="acme"), {"X-API-Key": "wrong"}):
            response = stack.http.get("/health/ready", headers=headers)
            assert (response.status_code, "internal:6333" in response.text) == (503, False)
        assert "internal:6333" in stack.http.get("/health/ready", headers=stack.token()).text
    finally:
        stack.healths["embed"] = {"ready": True, "reason": None}


def test_administrators_make_list_and_revoke_keys(stack: Stack) -> None:
    admin = stack.token(scopes=frozenset({"admin"}))
    wanted = {"name": "ci", "scopes": ["write"], "tenant": "acme", "tier": "pro", "expires_in_days": 1}
    response = stack.http.post("/api/v1/keys", json=wanted, headers=admin)
    assert (response.status_code, response.headers["Cache-Control"]) == (201, "no-store")
    created = response.json()
    assert {**created, **wanted} == {**created, "expires_in_days": 1}
    mine = {"X-API-Key": created["token"]}
    assert stack.http.post("/api/v1/documents", json={"text": "t"}, headers=mine).status_code == 202
    listed = stack.http.get("/api/v1/keys", headers=admin)
    assert created["id"] in [key["id"] for key in listed.json()]
    assert created["token"] not in listed.text
    assert "digest" not in listed.text
    usage = stack.http.get(f"{response.headers['Location']}/usage", headers=admin).json()
    assert sum(usage["requests"].values()) == 1
    assert time.time() - usage["last_used"] < 60
    revoked = stack.http.delete(response.headers["Location"], headers=admin).json()
    assert revoked["revoked_at"] is not None
    assert stack.http.post("/api/v1/documents", json={"text": "t"}, headers=mine).status_code == 401
    for path in ("/api/v1/keys/00000000", "/api/v1/keys/00000000/usage"):
        method = "GET" if path.endswith("usage") else "DELETE"
        assert stack.http.request(method, path, headers=admin).status_code == 404
    bad = stack.http.post("/api/v1/keys", json={"name": "k", "scopes": ["admin"], "tenant": "acme"}, headers=admin)
    assert (bad.status_code, "whole installation" in bad.text) == (422, True)


def test_who_logs_in_has_a_token_for_a_while(stack: Stack) -> None:
    response = stack.http.post("/api/v1/login", json={"user": "ada", "password": PASSWORD})
    assert (response.status_code, response.headers["Cache-Control"]) == (200, "no-store")
    token = response.json()
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 900)
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    published = stack.http.post("/api/v1/documents", json={"document_id": "d", "text": "t"}, headers=headers)
    assert published.json()["document_id"] == "d"
    assert stack.publisher.log[-1][0].document_id == "acme/d"
    claims = jwt.decode(token["access_token"], options={"verify_signature": False})
    secret = stack.access._signing_secret().get_secret_value()
    now = int(time.time())
    for change in ({"exp": now - 1}, {"iss": "x"}, {"aud": "x"}, {"exp": None}, {"sub": None}):
        altered = {name: value for name, value in {**claims, **change}.items() if value is not None}
        altered.setdefault("tenant", None)
        headers = {"Authorization": f"Bearer {jwt.encode(altered, secret, 'HS256')}"}
        assert (stack.http.get("/api/v1/formats", headers=headers).status_code, change) == (401, change)
    for forged in (jwt.encode(claims, "x" * 32, "HS256"), jwt.encode(claims, "", "none"), "a.b.c"):
        assert stack.http.get("/api/v1/formats", headers={"Authorization": f"Bearer {forged}"}).status_code == 401


def test_a_wrong_login_tells_nothing(stack: Stack) -> None:
    answers = [
        stack.http.post("/api/v1/login", json={"user": name, "password": "wrong password"}).json()
        for name in ("ada", "nobody-of-this-name")
    ]
    assert answers[0]["detail"] == answers[1]["detail"] == "no user has this name and password"
    invalid = stack.http.post("/api/v1/login", json={"user": "a b", "password": PASSWORD})
    assert (invalid.status_code, PASSWORD in invalid.text) == (422, False)


def test_limits_are_told_and_kept() -> None:
    with serving(change=_with(free=Tier(per_minute=2, per_day=100), login_attempts=2)) as stack:
        headers = stack.token(tier="free")
        first, second, third = (stack.http.get("/api/v1/formats", headers=headers) for _ in range(3))
        assert [answer.status_code for answer in (first, second, third)] == [200, 200, 429]
        assert first.headers["X-RateLimit-Limit"] == "2"
        assert second.headers["X-RateLimit-Remaining"] == "0"
        assert second.headers["RateLimit"].startswith('"minute";r=0;t=')
        assert third.json()["type"] == "urn:aegis:problem:too-many-requests"
        assert int(third.headers["Retry-After"]) <= 60
        assert third.headers["RateLimit-Policy"] == '"minute";q=2;w=60, "day";q=100;w=86400'
        logins = [stack.http.post("/api/v1/login", json={"user": "x", "password": "y"}) for _ in range(3)]
        assert [answer.status_code for answer in logins] == [401, 401, 429]


def test_on_the_loopback_everything_is_open_until_the_first_key() -> None:
    with serving() as stack:
        assert stack.http.post("/api/v1/documents", json={"text": "t"}).status_code == 202
        assert stack.http.get("/api/v1/keys", headers={"Authorization": "Bearer sk-none"}).json() == []
        assert "X-RateLimit-Limit" not in stack.http.get("/api/v1/formats").headers
        headers = stack.token()
        time.sleep(1.1)
        assert stack.http.get("/api/v1/formats").status_code == 401
        [key] = stack.access.keys.list()
        assert stack.http.get("/api/v1/formats", headers=headers).status_code == 200
        stack.access.keys.revoke(key.id)
        assert stack.http.get("/api/v1/formats").status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "api.example.org"])
def test_beyond_the_loopback_nobody_serves_without_anyone_to_let_in(host: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, api=Api(host=host))
    with pytest.raises(ValueError, match="aegis keys create"):
        Access(settings).check()
    Access(settings).users.create(User(name="ada"), SecretStr(PASSWORD))
    Access(settings).check()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_the_loopback_nothing_is_asked_for_and_nothing_written(host: str, tmp_path: Path) -> None:
    access = Access(Settings(data_dir=tmp_path, api=Api(host=host)))
    access.check()
    assert access.look()
    assert list(tmp_path.iterdir()) == []


def test_a_page_of_somebody_else_is_not_answered() -> None:
    with serving(change=_with(host="127.0.0.1", hosts=("aegis.example",))) as stack:
        port = stack.port
        for host, status in {
            f"127.0.0.1:{port}": 200,
            "localhost": 200,
            f"LOCALHOST:{port}": 200,
            "[::1]:1": 200,
            "aegis.example": 200,
            f"evil.example:{port}": 421,
            "127.0.0.1.evil.example": 421,
            "": 421,
        }.items():
            assert (stack.http.get("/api/v1/formats", headers={"Host": host}).status_code, host) == (status, host)
        for origin, status in {
            f"http://127.0.0.1:{port}": 202,
            "https://evil.example": 403,
            "null": 403,
            f"http://127.0.0.1:{port}.evil.example": 403,
        }.items():
            files = {"file": ("f.txt", b"t", "text/plain")}  # a form needs no preflight
            response = stack.http.post("/api/v1/documents", files=files, headers={"Origin": origin})
            assert (response.status_code, origin) == (status, origin)
        assert len(stack.publisher.log) == 1


def test_answers_say_how_browsers_should_treat_them(stack: Stack) -> None:
    for path in ("/health/live", "/api/v1/formats"):
        headers = stack.http.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_the_audit_log_says_who_did_what(stack: Stack) -> None:
    admin = stack.token(scopes=frozenset({"admin"}))
    key = stack.http.post("/api/v1/keys", json={"name": "w", "tenant": "acme", "tier": "enterprise"}, headers=admin)
    mine = {"X-API-Key": key.json()["token"], "X-Request-ID": "audited-1"}
    stack.http.post("/api/v1/documents", json={"document_id": "d", "text": "t"}, headers=mine)
    stack.http.delete("/api/v1/documents/d", headers=mine)
    stack.http.get("/api/v1/documents/d", headers=mine)
    stack.http.get("/api/v1/keys", headers=mine)
    stack.http.post("/api/v1/documents", json={"text": "t"})
    stack.http.post("/api/v1/login", json={"user": "mallory", "password": "wrong password"})
    acts = stack.http.get("/api/v1/audit", params={"limit": 5}, headers=admin).json()
    who = f"key:{key.json()['id']}"
    assert [(act["who"], act["what"], act["which"], act["outcome"]) for act in acts] == [
        ("user:mallory", "POST /api/v1/login", "/api/v1/login", "401"),
        (who, "GET /api/v1/keys", "/api/v1/keys", "403"),
        (who, "DELETE /api/v1/documents/{document_id}", "/api/v1/documents/d", "202"),
        (who, "POST /api/v1/documents", "/api/v1/documents/d", "202"),
        (acts[4]["who"], "POST /api/v1/keys", f"/api/v1/keys/{key.json()['id']}", "201"),
    ]
    assert {(act["tenant"], act["request_id"]) for act in acts[1:4]} == {("acme", "audited-1")}


def test_the_audit_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.access.audit._MEGABYTE", 1000)
    audit = Access(Settings(data_dir=tmp_path, access=AccessSettings(audit_file_mb=1))).audit
    for number in range(100):
        audit.add(who="w", what="POST /api/v1/documents", which=str(number), outcome="202")
    files = sorted((tmp_path / "access").glob("audit*.jsonl"))
    assert len(files) == 5
    assert all(file.stat().st_size <= 1000 for file in files)
    acts = audit.last(1000)
    assert [act.which for act in acts] == [str(number) for number in range(99, 99 - len(acts), -1)]
    assert 20 < len(acts) < 50


def _issuer(folder: Path) -> tuple[rsa.RSAPrivateKey, AccessSettings]:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key = json.loads(RSAAlgorithm.to_jwk(private.public_key())) | {"kid": "k1", "alg": "RS256", "use": "sig"}
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": [key]}))
    return private, AccessSettings(issuer=Issuer(keys=file, name="https://id.example", audience="aegis"))


def test_tokens_of_another_issuer_are_read(tmp_path: Path) -> None:
    private, settings = _issuer(tmp_path)
    access = Access(Settings(data_dir=tmp_path, access=settings))
    assert not access.look()  # closed, though there is no key
    now = int(time.time())
    claims = {"iss": "https://id.example", "aud": "aegis", "sub": "u1", "iat": now, "exp": now + 60}
    granted = {"scope": "openid read admin", "tenant": "acme", "tier": "pro"}

    def read(
        changed: dict[str, Any], kid: str = "k1", key: Any = private, algorithm: str = "RS256"
    ) -> Principal | None:
        token = jwt.encode({**claims, **granted, **changed}, key, algorithm, headers={"kid": kid})
        return access.tokens.principal(token)

    expected = Principal(name="https://id.example:u1", scopes=frozenset({"read"}), tenant="acme", tier="pro")
    assert read({}) == expected
    for changed in ({"aud": "x"}, {"iss": "x"}, {"exp": now - 60}, {"tenant": None}, {"tenant": "a/b"}):
        assert read(changed) is None
    assert read({}, key=rsa.generate_private_key(public_exponent=65537, key_size=2048)) is None
    assert read({}, key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256") is None
    assert read({"iss": "aegis-streams", "aud": "aegis-streams"}, key="x" * 32, algorithm="HS256") is None
    whole = settings.model_copy(update={"issuer": settings.issuer.model_copy(update={"tenant_claim": ""})})
    access = Access(Settings(data_dir=tmp_path, access=whole))
    assert read({}) == Principal(name="https://id.example:u1", scopes=frozenset({"read", "admin"}), tier="pro")


def test_an_issuer_needs_a_name_and_keys_that_can_be_read(tmp_path: Path) -> None:
    _, settings = _issuer(tmp_path)
    nameless = settings.model_copy(update={"issuer": settings.issuer.model_copy(update={"name": ""})})
    with pytest.raises(ValueError, match="ISSUER__NAME"):
        Access(Settings(data_dir=tmp_path, access=nameless))
    (tmp_path / "jwks.json").write_text("nonsense")
    with pytest.raises(ValueError, match="neither a JWKS"):
        Access(Settings(data_dir=tmp_path, access=settings))


def test_a_store_that_is_down_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(change=_with()) as stack:
        headers = stack.token()

        def down(*_: object) -> None:
            raise UnavailableError("secret address of Redis")

        monkeypatch.setattr(stack.access.keys, "principal", down)
        response = stack.http.get("/api/v1/formats", headers=headers)
        assert (response.status_code, "secret" in response.text) == (503, False)
        assert response.headers["Retry-After"] == "5"


def test_no_secret_is_logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(change=_with(login_attempts=50)) as stack:
        stack.access.users.create(User(name="ada"), SecretStr(PASSWORD))
        headers = stack.token()
        secrets = [headers["Authorization"].split("_", 2)[2], PASSWORD]
        login = {"user": "ada", "password": PASSWORD}
        secrets.append(stack.http.post("/api/v1/login", json=login).json()["access_token"])
        admin = stack.token(scopes=frozenset({"admin"}))
        secrets.append(stack.http.post("/api/v1/keys", json={"name": "k"}, headers=admin).json()["token"])
        stack.retriever.error = RuntimeError("a bug")
        assert stack.http.post("/api/v1/search", json={"query": "q"}, headers=headers).status_code == 500
        for wrong in (
            {**login, "password": PASSWORD * 100},
            {**login, "more": PASSWORD},
            [PASSWORD],
            login | {"user": ""},
        ):
            stack.http.post("/api/v1/login", json=wrong)
        stack.http.get("/api/v1/keys", headers={"Authorization": headers["Authorization"] + "x"})
        stack.http.get("/api/v1/keys", headers={"Authorization": f"Bearer {secrets[2]}x"})
        stack.http.delete("/api/v1/keys/none", headers=admin)
        logged = json.dumps(list(stack.logs), default=repr)
        files = b"".join(file.read_bytes() for file in Path(stack.folder.name).rglob("audit*"))
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "a bug" in logged
    assert b"POST /api/v1/login" in files
    for secret in secrets:
        assert secret not in logged + printed + files.decode()
