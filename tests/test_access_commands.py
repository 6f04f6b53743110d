"""`aegis keys`, `aegis users`, `aegis audit`, and the command lines of docs/access.md, run."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from api.access.access import Access
from deploy.cli import app
from deploy.commands.output import api_client
from deploy.running import Running
from schemas.settings import Access as AccessSettings
from schemas.settings import Api, Settings
from tests.api_server import Stack, serving
from tests.test_docs import ROOT, blocks


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    return tmp_path


def aegis(*words: str, typed: str | None = None, status: int = 0) -> Result:
    result = CliRunner().invoke(app, words, input=typed)
    assert result.exit_code == status, result.output
    return result


def told(*words: str) -> Any:
    return json.loads(aegis(*words, "--json").stdout)


def test_a_key_is_made_listed_used_and_revoked(folder: Path) -> None:
    token = aegis("keys", "create", "ci", "--scope", "write", "--tenant", "acme", "--tier", "pro").stdout.strip()
    [key] = told("keys", "list")
    assert (key["name"], key["scopes"], key["tenant"], key["tier"]) == ("ci", ["write"], "acme", "pro")
    access = Access(Settings(data_dir=folder))
    assert access.keys.principal(token)
    [usage] = told("keys", "usage", key["id"])
    assert sum(usage["requests"].values()) == 1
    assert "valid" in aegis("keys", "list").stdout
    assert "ci" in aegis("keys", "usage").stdout
    aegis("keys", "revoke", key["id"])
    assert access.keys.principal(token) is None
    assert "revoked" in aegis("keys", "list").stdout
    acts = told("audit")
    assert [(act["what"], act["which"]) for act in acts] == [("keys revoke", key["id"]), ("keys create", key["id"])]
    assert acts[0]["who"].startswith("cli:")
    assert "keys revoke" in aegis("audit").stdout
    assert token.split("_", 2)[2] not in json.dumps(acts)


def test_a_user_is_made_and_removed(folder: Path) -> None:
    aegis("users", "create", "ada", "--tenant", "acme", "--password-stdin", typed="correct horse\n")
    assert [user["name"] for user in told("users", "list")] == ["ada"]
    assert "acme" in aegis("users", "list").stdout
    assert Access(Settings(data_dir=folder)).users.verified("ada", SecretStr("correct horse"))
    aegis("users", "remove", "ada")
    assert told("users", "list") == []


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        ("keys create k --tier gold", 2, "tier"),
        ("keys create k --scope admin --tenant acme", 2, "whole installation"),
        ("keys create k --tenant A/b", 2, "tenant"),
        ("keys revoke 00000000", 1, "no key"),
        ("keys usage 00000000", 1, "no key"),
        ("users remove nobody", 1, "no user"),
        ("users create ada --password-stdin", 1, "12 to 1024"),
    ],
)
def test_what_is_wrong_is_said(words: str, status: int, why: str) -> None:
    assert why in aegis(*words.split(), typed="short\n", status=status).output


def test_the_command_shows_the_key_of_its_settings() -> None:
    settings = Settings(access=AccessSettings(key=SecretStr("aegis_1")))
    running = Running(bootstrap_servers="", api_url="http://127.0.0.1:1", pid=0)
    with api_client(settings, running, timeout=1) as client:
        assert client.headers["Authorization"] == "Bearer aegis_1"
    with api_client(Settings(), running, timeout=1) as client:
        assert "Authorization" not in client.headers


def test_the_documented_command_lines_work() -> None:
    lines = [line for block in blocks(ROOT / "docs/access.md", "sh") for line in block.splitlines()]
    ours = [line for line in lines if line.startswith(("aegis keys", "aegis users"))]
    assert len(ours) > 6
    aegis("users", "create", "ada", "--password-stdin", typed="correct horse\n")
    for line in ours:
        if "revoke" not in line:  # whose id is another
            aegis(*shlex.split(line)[1:])


def test_the_documented_requests_work() -> None:
    def change(stack: Stack) -> None:
        stack.settings = Settings(api=Api(host="0.0.0.0", max_body_mb=1))
        stack.token()

    text = "\n".join(blocks(ROOT / "docs/access.md", "sh")).replace("\\\n", "")
    requests = [line for line in text.splitlines() if line.startswith("curl ")]
    assert len(requests) == 2
    with serving(change=change) as stack:
        whole, acme = (one["Authorization"].split()[1] for one in (stack.token(), stack.token(tenant="acme")))
        for request in requests:
            command = request.replace("127.0.0.1:8321", f"127.0.0.1:{stack.port}").replace("curl", "curl -sSf", 1)
            environment = {"AEGIS_ACCESS__KEY": whole, "ACME_KEY": acme, "PATH": "/usr/bin:/bin:/usr/local/bin"}
            done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
        assert [record.document_id for record, _ in stack.publisher.log] == ["acme/handbook/leave"]
