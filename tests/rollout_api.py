"""A version of the API in a process of its own, well or not: prints its port, ends in order when its input does."""

import sys
from typing import Any

from processors.errors import UnavailableError
from tests.api_server import MemoryRetriever, Stack, serving


class _Failing(MemoryRetriever):
    """Every fifth search fails."""

    def search(self, *queries: Any, **options: Any) -> Any:
        if len(self.searches) % 5 == 4:
            self.searches.append((None, None, None))
            raise UnavailableError("only under load")
        return super().search(*queries, **options)


_RETRIEVERS = {"well": MemoryRetriever, "failing": _Failing}


def main() -> None:
    def change(stack: Stack) -> None:
        stack.retriever = _RETRIEVERS[sys.argv[1]]()

    with serving(change=change) as stack:
        sys.stdout.write(f"{stack.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
