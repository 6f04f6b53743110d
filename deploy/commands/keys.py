"""`aegis keys`, `aegis users`, `aegis audit`: who is let in, and what they did. They need no running system."""

import getpass
import sys
import time
from typing import Annotated, Any, TypeVar

import typer
from pydantic import SecretStr, ValidationError

from api.access.access import Access
from api.access.keys import Key, NewKey
from api.access.principals import SCOPES, TIERS
from api.access.users import User
from deploy.commands.output import AsJson, err, fail, load_settings, out, print_json, reported, table

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke, usage.")
users = typer.Typer(no_args_is_help=True, help="Users who log in with a password: create, list, remove.")

Model = TypeVar("Model", NewKey, User)
Scopes = Annotated[list[str] | None, typer.Option("--scope", help=f"{', '.join(SCOPES)}; by default read and write.")]
Tenant = Annotated[str | None, typer.Option(help="Whose documents it reaches; without it, all of them.")]
Tier = Annotated[str, typer.Option(help=f"{', '.join(TIERS)}: how many requests it may make.")]


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, for people.")],
    scope: Scopes = None,
    tenant: Tenant = None,
    tier: Tier = "free",
    expires_in_days: Annotated[float | None, typer.Option(help="Without it, until it is revoked.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print its token, which cannot be shown again."""
    wanted = _checked(NewKey, {"name": name, "expires_in_days": expires_in_days, **_grant(scope, tenant, tier)})
    access = _access()
    with reported():
        key, token = access.keys.create(wanted)
        _note(access, "keys create", key.id)
    if as_json:
        print_json({**key.model_dump(mode="json"), "token": token.get_secret_value()})
        return
    sys.stdout.write(token.get_secret_value() + "\n")
    err.print(f"Key {key.id} of {name}. This is the only time that it is shown.", markup=False)


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List keys, without their secrets."""
    access = _access()
    with reported():
        keys = access.keys.list()
    if as_json:
        print_json(keys)
        return
    rows = [
        (key.id, key.name, ", ".join(sorted(key.scopes)), key.tenant, key.tier, _state(key), _day(key.created_at))
        for key in keys
    ]
    out.print(table(["id", "name", "scopes", "tenant", "tier", "state", "created"], rows))


@app.command("revoke")
def revoke_key(key_id: str, as_json: AsJson = False) -> None:
    """Revoke a key: from now on, and for good."""
    access = _access()
    with reported():
        key = access.keys.revoke(key_id)
    if key is None:
        fail(f"there is no key {key_id!r}; `aegis keys list` lists them")
    _note(access, "keys revoke", key_id)
    if as_json:
        print_json(key)
    else:
        out.print(f"Key {key_id} of {key.name} is revoked.", markup=False)


@app.command("usage")
def key_usage(
    key_id: Annotated[str | None, typer.Argument(help="A key; without it, all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say how often keys were used, and when last."""
    access = _access()
    with reported():
        keys = [key for key in access.keys.list() if key_id in (None, key.id)]
        usages = [(key, access.keys.usage(key.id)) for key in keys]
    if key_id is not None and not keys:
        fail(f"there is no key {key_id!r}; `aegis keys list` lists them")
    if as_json:
        print_json([{"id": key.id, "name": key.name, **vars(usage)} for key, usage in usages])
        return
    rows = [
        (key.id, key.name, sum(usage.requests.values()), usage.last_used and _day(usage.last_used))
        for key, usage in usages
    ]
    out.print(table(["id", "name", "requests in 90 days", "last used"], rows))


@users.command("create")
def create_user(
    name: str,
    scope: Scopes = None,
    tenant: Tenant = None,
    tier: Tier = "free",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Create a user; the password is asked for."""
    user = _checked(User, {"name": name, **_grant(scope, tenant, tier)})
    password = sys.stdin.readline().rstrip("\n") if password_stdin else typer.prompt("Password", hide_input=True)
    access = _access()
    with reported():
        access.users.create(user, SecretStr(password))
        _note(access, "users create", name)
    out.print(f"User {name} can log in.", markup=False)


@users.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List users."""
    access = _access()
    with reported():
        found = access.users.list()
    if as_json:
        print_json(found)
        return
    rows = [(user.name, ", ".join(sorted(user.scopes)), user.tenant, user.tier) for user in found]
    out.print(table(["name", "scopes", "tenant", "tier"], rows))


@users.command("remove")
def remove_user(name: str) -> None:
    """Remove a user; who is logged in stays so until the token expires."""
    access = _access()
    with reported():
        was_there = access.users.remove(name)
    if not was_there:
        fail(f"there is no user {name!r}; `aegis users list` lists them")
    _note(access, "users remove", name)
    out.print(f"User {name} is removed.", markup=False)


def audit(limit: Annotated[int, typer.Option(min=1)] = 50, as_json: AsJson = False) -> None:
    """Who did what: writes over HTTP and acts of administrators on this machine, the newest first."""
    acts = _access().audit.last(limit)
    if as_json:
        print_json(acts)
    else:
        rows = [(act.at, act.who, act.tenant, act.what, act.which, act.outcome) for act in acts]
        out.print(table(["at", "who", "tenant", "what", "which", "outcome"], rows))


def _access() -> Access:
    settings = load_settings()
    with reported():
        return Access(settings)


def _grant(scope: list[str] | None, tenant: str | None, tier: str) -> dict[str, Any]:
    return {"tenant": tenant, "tier": tier, **({"scopes": scope} if scope else {})}


def _checked(model: type[Model], given: dict[str, Any]) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(
            f"{' '.join(map(str, found['loc'])) or 'it'}: {found['msg']}" for found in error.errors(include_input=False)
        )
        fail(problems, status=2)


def _note(access: Access, what: str, which: str) -> None:
    access.audit.add(who=f"cli:{getpass.getuser()}", what=what, which=which, outcome="done")


def _state(key: Key) -> str:
    return "valid" if key.is_valid else "revoked" if key.revoked_at else "expired"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
