"""How a record fails.

PipelineError
 ├─ UnavailableError   the world's fault (store, broker, LLM down): wait here, acknowledge nothing, let lag grow
 │   └─ OverloadedError    it works, but too much waits for it already
 ├─ FatalError         this process's fault: it ends, acknowledges nothing, and is started again
 ├─ TransientError     this record may pass later: retry topics, then the dead-letter topic
 │   └─ DeadlineError      it was not its turn before its caller's deadline
 └─ PermanentError     this record never passes: the dead-letter topic

Adapters translate their library's exceptions into these; whatever is unknown counts as transient.
"""


class PipelineError(Exception):
    """Anything a processor or sink raises on purpose."""


class UnavailableError(PipelineError):
    """A dependency cannot be used now; ``retry_after`` (seconds) where it said when it can."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OverloadedError(UnavailableError):
    """Too much waits already; after ``retry_after`` seconds there should be room."""


class FatalError(PipelineError):
    """This process cannot go on: what it holds open is broken, and only opening it anew may mend it."""


class TransientError(PipelineError):
    """This record failed, but may pass later."""


class DeadlineError(TransientError):
    """The work was not begun before its deadline, and now will not be."""


class PermanentError(PipelineError):
    """This record can never pass. The message says what is wrong and what to do."""
