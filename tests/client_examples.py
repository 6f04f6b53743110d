"""The examples of docs/clients.md, run as they are printed but for the address."""

import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.programs import program

PAGE = Path(__file__).parents[1] / "docs/clients.md"
ADDRESS = "http://127.0.0.1:8321"
_CODE_BLOCK = re.compile(r"^```(py|python|js|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(address: str) -> Iterator[tuple[str, str]]:
    """Language and code of each example, for an API at ``address``; every curl command by itself."""
    for language, code in _CODE_BLOCK.findall(PAGE.read_text().replace(ADDRESS, address)):
        if language == "sh":
            yield from ((language, line) for line in code.replace("\\\n", " ").splitlines())
        else:
            yield language, code


def printed(language: str, code: str) -> str:
    """What an example prints.

    Raises:
        CalledProcessError: It fails.
    """
    if language == "python":
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})
        return out.getvalue()
    if language == "js":
        words = [program("node", "nodejs"), "--input-type=module", "--eval", code]
    else:
        words = shlex.split(code)
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
