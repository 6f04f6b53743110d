"""Programs of the system that tests drive: found, or installed by its package manager where we may."""

import os
import shutil
import subprocess
from functools import cache


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
