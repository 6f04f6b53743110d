"""Programs of the system that tests drive: found, or installed by its package manager where we may."""

import os
import shutil
import subprocess
from functools import cache

import platformdirs


@cache
def program(name: str, package: str) -> str:
    """Path of a program of a Debian package.

    Raises:
        RuntimeError: It is not there, and could not be installed.
    """
    if shutil.which(name) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", package]):
            subprocess.run(
                ["apt-get", "--quiet", *arguments],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                check=False,
                timeout=900,
            )
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is needed: install Debian's package {package}, or put {name} on the PATH")
    return found


@cache
def go_program(name: str, module: str) -> str:
    """Path of a program built from its Go module, once for this user.

    Raises:
        RuntimeError: Neither it nor Go is there, or it cannot be built.
    """
    built = platformdirs.user_cache_path("aegis-streams") / "go"
    if found := shutil.which(name) or shutil.which(name, path=str(built)):
        return found
    if shutil.which("go") is None:
        raise RuntimeError(f"{name} is needed: put it on the PATH, or install Go, which builds it from {module}")
    done = subprocess.run(
        ["go", "install", module],
        env={**os.environ, "GOBIN": str(built)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{module} could not be built: {done.stderr[-1000:]}")
    return str(built / name)
