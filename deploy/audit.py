"""`make audit`: locked packages against the published vulnerabilities; what nobody could be asked about is no pass.

Exit statuses: 0 nothing is known against any of them, 1 something is, 3 not all of them could be asked about.
"""

import argparse
import json
import subprocess  # nosec B404  # pip-audit
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

VULNERABLE, NOT_AUDITED = 1, 3


@dataclass
class Audit:
    """What is known against packages, and of which nothing could be learned; a sentence each."""

    asked: int = 0
    vulnerable: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The exit status."""
        return VULNERABLE if self.vulnerable else NOT_AUDITED if self.unknown or not self.asked else 0

    def words(self) -> str:
        """All of it, for people."""
        if self.status == NOT_AUDITED:
            which = f"{len(self.unknown)} of {self.asked} packages are unknown" if self.asked else "nobody answers"
            return "\n".join([f"NOT AUDITED: {which}, such as:", *self.unknown[:3]])
        known = "\n".join(self.vulnerable) or "nothing is known against them"
        return f"{self.asked} packages, {len(self.unknown)} of them unknown: {known}"


def audit(locks: Sequence[str], options: Sequence[str] = ()) -> Audit:
    """Ask pip-audit, which by itself passes where the service knows none of the packages."""
    files = [part for lock in locks for part in ("--requirement", lock)]
    command = [sys.executable, "-m", "pip_audit", *files, "--disable-pip", "--progress-spinner=off", "--format=json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)  # nosec B603  # no shell
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return Audit(unknown=done.stderr.strip().splitlines()[-1:])
    found = Audit(asked=len(packages))
    for one in packages:
        if reason := one.get("skip_reason"):
            found.unknown.append(reason)
        for known in one.get("vulns", []):
            fixed = ", ".join(known["fix_versions"]) or "nothing yet"
            found.vulnerable.append(f"{one['name']} {one['version']}: {known['id']}, mended by {fixed}")
    return found


def main() -> None:
    """What is not understood goes to pip-audit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("locks", nargs="+")
    known, options = parser.parse_known_args()
    found = audit(known.locks, options)
    sys.stdout.write(f"{found.words()}\n")
    sys.exit(found.status)


if __name__ == "__main__":
    main()
