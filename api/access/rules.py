"""What a request needs, by its method and path; a route that nobody thought of needs a key too."""

from collections.abc import Sequence
from ipaddress import ip_address

from starlette.datastructures import Headers

from api.access.principals import Principal, Scope
from api.problems import Problem

LOGIN = "/api/v1/login"
KEYS = "/api/v1/keys"
AUDIT = "/api/v1/audit"
LANGUAGE_MODELS = "/api/v1/llm"

# Probes have no key, and who logs in has none yet.
OPEN = frozenset({"/health/live", "/health/ready", LOGIN})
_ADMIN = (KEYS, AUDIT)
# They tell of all tenants at once.
_WHOLE_INSTALLATION = (
    *_ADMIN,
    LANGUAGE_MODELS,
    "/health",
    "/metrics",
    "/api/v1/lag",
    "/api/v1/stuck",
    "/api/v1/consistency",
    "/api/v1/decisions",
    "/api/pool",
)
_CONSOLE = "/console"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_READING_POSTS = ("/api/v1/search", "/api/v1/chat", "/v1/")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def scope_needed(method: str, path: str) -> Scope:
    """What a key must be allowed to do for this request."""
    if _is_below(path, _ADMIN):
        return "admin"
    return "read" if method in _SAFE or path.startswith(_READING_POSTS) else "write"


def check_permission(principal: Principal, method: str, path: str) -> None:
    """Refuse what this one may not do with a 403 problem."""
    if is_open(path):
        return
    needed = scope_needed(method, path)
    if needed not in principal.scopes:
        raise Problem(403, "forbidden", f"this needs a key with the scope {needed}; yours has {_listed(principal)}")
    if principal.tenant is not None and (_is_below(path, _WHOLE_INSTALLATION) or _is_about_links(path)):
        raise Problem(403, "forbidden", "this tells of the whole installation; it needs a key that is of no tenant")


def is_open(path: str) -> bool:
    """Whether everybody may ask for it. The console's pages hold nothing: they ask the API with a key of their own."""
    return path in OPEN or _is_below(path, [_CONSOLE])


def may_see_everything(principal: Principal) -> bool:
    """Whether this one may know what concerns all tenants."""
    return principal.tenant is None and "read" in principal.scopes


def allowed_hosts(host: str, named: Sequence[str]) -> frozenset[str]:
    """The names that requests to a server bound to ``host`` may call it by; empty means any."""
    return frozenset(map(str.lower, (*named, *(_LOOPBACK_NAMES if is_loopback(host) else ()))))


def check_names(headers: Headers, hosts: frozenset[str]) -> None:
    """Refuse what a page of somebody else makes a browser send: by DNS rebinding, or from another origin.

    Raises:
        Problem: 421, the server does not go by this name; 403, the page is another server's.
    """
    host = headers.get("Host", "").lower()
    if hosts and _without_port(host) not in hosts:
        names = ", ".join(sorted(hosts))
        raise Problem(421, "misdirected", f"here is {names}; AEGIS_ACCESS__HOSTS adds names that this server goes by")
    origin = headers.get("Origin")
    if origin is not None and origin.lower().partition("://")[2] != host:
        raise Problem(403, "cross-site", "pages of another origin are not answered")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _is_below(path: str, roots: Sequence[str]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)


def _is_about_links(path: str) -> bool:
    return path.startswith("/api/v1/entities/") and "/links" in path


def _listed(principal: Principal) -> str:
    return ", ".join(sorted(principal.scopes)) or "none"
