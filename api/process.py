"""What an API process has once, whichever index it answers from."""

from dataclasses import dataclass, field

from api.answers.sessions import Sessions
from api.console.mount import Console
from api.draining import Draining
from schemas.settings import Settings


@dataclass(frozen=True)
class Process:
    """The console is one per process, draining is the end of all of it, and conversations outlive an index."""

    console: Console | None
    sessions: Sessions
    draining: Draining = field(default_factory=Draining)

    @classmethod
    def of(cls, settings: Settings) -> "Process":
        """As the settings say."""
        return cls(Console(settings.data_dir) if settings.api.console else None, Sessions(settings.answers))
