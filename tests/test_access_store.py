"""Keys, users and limits, on a file and (where there is one) on a real Redis: one contract for both."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr, ValidationError

from api.access.access import Access
from api.access.keys import Keys, NewKey
from api.access.limits import Limits
from api.access.principals import Principal
from api.access.store import AccessStore, RedisStore, SqliteStore
from api.access.users import User, Users
from api.problems import Problem
from processors.errors import UnavailableError
from schemas.settings import Access as AccessSettings
from schemas.settings import Settings, Tier
from tests import redis_server

STORES = ["file", *(["redis"] if redis_server.IS_THERE else [])]


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest) -> SecretStr | None:
    if request.param == "file":
        return None
    return SecretStr(redis_server.emptied())


@pytest.fixture
def store(url: SecretStr | None, tmp_path: Path) -> AccessStore:
    return RedisStore(url.get_secret_value()) if url else SqliteStore(tmp_path / "access" / "access.db")


def test_a_text_is_kept_once_replaced_and_removed(store: AccessStore) -> None:
    assert store.get("user", "ada") is None
    assert store.add("user", "ada", "1")
    assert not store.add("user", "ada", "2")
    assert store.add("key", "ada", "another kind")
    store.put("user", "ada", "3")
    store.put("user", "bob", "4")
    assert (store.get("user", "ada"), dict(store.all("user"))) == ("3", {"ada": "3", "bob": "4"})
    assert store.remove("user", "ada")
    assert not store.remove("user", "ada")
    assert store.get("key", "ada") == "another kind"


def _count(store: AccessStore) -> None:
    for _ in range(25):
        store.count("k")


def test_requests_are_counted_by_day_from_several_threads(store: AccessStore) -> None:
    assert store.usage("k").last_used is None
    threads = [threading.Thread(target=_count, args=[store]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    usage = store.usage("k")
    assert list(usage.requests.values()) == [100]
    assert next(iter(usage.requests)) == time.strftime("%Y-%m-%d", time.gmtime())
    assert time.time() - (usage.last_used or 0) < 60
    assert not store.usage("other").requests


def test_a_key_lets_in_until_it_is_revoked_or_expired(store: AccessStore) -> None:
    keys = Keys(store)
    key, token = keys.create(NewKey(name="ci", scopes=frozenset({"write"}), tenant="acme", tier="pro"))
    text = token.get_secret_value()
    assert text.startswith(f"aegis_{key.id}_")
    expected = Principal(name=f"key:{key.id}", scopes=frozenset({"write"}), tenant="acme", tier="pro")
    assert keys.principal(text) == expected
    other = keys.create(NewKey(name="other"))[1].get_secret_value()
    for wrong in (text[:-1], text[:-1] + ("A" if text[-1] != "A" else "B"), text[:15] + other[15:], "aegis_", ""):
        assert keys.principal(wrong) is None
    assert sum(keys.usage(key.id).requests.values()) == 1
    brief = keys.create(NewKey(name="brief", expires_in_days=1e-9))[1]
    time.sleep(0.01)
    assert keys.principal(brief.get_secret_value()) is None
    revoked = keys.revoke(key.id)
    assert revoked is not None
    assert keys.principal(text) is None
    assert keys.revoke(key.id) == revoked  # the first time counts
    assert keys.revoke("00000000") is None
    assert [one.name for one in keys.list()] == ["ci", "other", "brief"]


def test_no_secret_is_kept(store: AccessStore, tmp_path: Path, url: SecretStr | None) -> None:
    secret = Keys(store).create(NewKey(name="k"))[1].get_secret_value().split("_", 2)[2]
    Users(store).create(User(name="ada"), SecretStr("a long password"))
    held = "".join([*store.all("key").values(), *store.all("user").values()])
    assert "ada" in held
    assert secret not in held
    assert "a long password" not in held
    if url is None:
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert all(secret.encode() not in file.read_bytes() for file in files)
        assert {file.stat().st_mode & 0o077 for file in files} == {0}
        assert (tmp_path / "access").stat().st_mode & 0o077 == 0


def test_a_user_is_known_by_the_password(store: AccessStore) -> None:
    users = Users(store)
    users.create(User(name="ada", tenant="acme"), SecretStr("correct horse"))
    assert users.verified("ada", SecretStr("correct horse")) == User(name="ada", tenant="acme")
    assert users.verified("ada", SecretStr("correct hors")) is None
    assert users.verified("bob", SecretStr("correct horse")) is None
    with pytest.raises(ValueError, match="already"):
        users.create(User(name="ada"), SecretStr("another password"))
    with pytest.raises(ValueError, match="12 to 1024"):
        users.create(User(name="bob"), SecretStr("short"))
    assert [user.name for user in users.list()] == ["ada"]
    assert users.remove("ada")
    assert users.verified("ada", SecretStr("correct horse")) is None


def test_admin_is_never_a_tenants() -> None:
    with pytest.raises(ValidationError, match="whole installation"):
        NewKey(name="k", scopes=frozenset({"admin"}), tenant="acme")


@pytest.mark.parametrize("tenant", ["", "a/b", "Acme", "-a", "a b", "a" * 64])
def test_what_no_tenant_can_be_called(tenant: str) -> None:
    with pytest.raises(ValidationError):
        NewKey(name="k", tenant=tenant)


def _create(file: Path) -> None:
    keys = Keys(SqliteStore(file))
    for _ in range(20):
        keys.create(NewKey(name="k"))


def test_several_processes_share_a_file(tmp_path: Path) -> None:
    file = tmp_path / "access.db"
    started = multiprocessing.get_context("fork")
    children = [started.Process(target=_create, args=[file]) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len(Keys(SqliteStore(file)).list()) == 60


@pytest.fixture
def limits(url: SecretStr | None) -> Iterator[Limits]:
    yield Limits(AccessSettings(redis_url=url, free=Tier(per_minute=3, per_day=5), login_attempts=2))


def _principal(**fields: object) -> Principal:
    return Principal(name=f"key:{uuid4()}", tier="free")


def test_a_tier_has_its_limits_and_says_what_is_left(limits: Limits) -> None:
    ada, bob = _principal(), _principal()
    left = [limits.take(ada) for _ in range(3)]
    assert [headers["X-RateLimit-Remaining"] for headers in left] == ["2", "1", "0"]
    assert left[0]["X-RateLimit-Limit"] == "3"
    assert 0 < int(left[0]["X-RateLimit-Reset"]) <= 60
    assert left[0]["RateLimit-Policy"] == '"minute";q=3;w=60, "day";q=5;w=86400'
    assert left[2]["RateLimit"].startswith('"minute";r=0;t=')
    assert '"day";r=2;t=86' in left[2]["RateLimit"]
    with pytest.raises(Problem) as refused:
        limits.take(ada)
    headers = refused.value.headers or {}
    assert refused.value.status_code == 429
    assert 0 < int(headers["Retry-After"]) <= 60
    assert headers["X-RateLimit-Remaining"] == "0"
    assert limits.take(bob)["X-RateLimit-Remaining"] == "2"


def test_the_day_is_what_ends_where_the_minute_does_not(url: SecretStr | None) -> None:
    limits = Limits(AccessSettings(redis_url=url, free=Tier(per_minute=0, per_day=2)))
    ada = _principal()
    assert [limits.take(ada)["X-RateLimit-Remaining"] for _ in range(2)] == ["1", "0"]
    with pytest.raises(Problem) as refused:
        limits.take(ada)
    assert int((refused.value.headers or {})["Retry-After"]) > 86_000


def test_an_unlimited_tier_has_no_headers(limits: Limits) -> None:
    assert limits.take(Principal(name="e", tier="enterprise")) == {}
    assert limits.take(Principal(name="anonymous")) == {}


def test_logins_are_limited_by_name_and_by_address(limits: Limits) -> None:
    here, there = str(uuid4()), str(uuid4())
    limits.take_login("ada" + here, here)
    limits.take_login("ada" + here, there)
    for name, address in (("ada" + here, str(uuid4())), (str(uuid4()), here)):
        limits.take_login(str(uuid4()), address)
        with pytest.raises(Problem, match="too many attempts"):
            limits.take_login(name, address)


def test_the_tiers_are_as_promised() -> None:
    settings = AccessSettings()
    assert vars(settings.free) == {"per_minute": 10, "per_day": 100}
    assert vars(settings.pro) == {"per_minute": 100, "per_day": 10_000}
    assert vars(settings.enterprise) == {"per_minute": 0, "per_day": 0}


def test_a_redis_that_is_not_there_is_an_unavailable_store(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, access=AccessSettings(redis_url=SecretStr("redis://:hidden@127.0.0.1:1/0")))
    access = Access(settings)
    for asks in (access.look, access.keys.list, lambda: access.limits.take(_principal())):
        with pytest.raises(UnavailableError) as error:
            asks()
        assert "hidden" not in str(error.value)
