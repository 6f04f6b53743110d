"""Whether one index is as far as another, document by document, as their stages report them."""

from schemas.status import SETTLED, DocumentStatus
from streams.status import StatusView


class CatchingUp:
    """What the old index holds at this moment, and what of it the new one does not hold yet.

    Documents that come later are not waited for: under a steady stream something always has just come.
    """

    def __init__(self, old: StatusView, new: StatusView, *, without_failed: bool) -> None:
        statuses = map(old.get, old.ids())
        self.left = {one.document_id: one for one in statuses if one is not None and one.state in SETTLED}
        self.total = len(self.left)
        self._new = new
        self._without_failed = without_failed

    @property
    def done(self) -> int:
        """Documents that both hold."""
        return self.total - len(self.left)

    def is_done(self) -> bool:
        """Look again; whether nothing is left."""
        self._new.catch_up()
        self.left = {id_: old for id_, old in self.left.items() if not self._holds(self._new.get(id_), old)}
        return not self.left

    def _holds(self, new: DocumentStatus | None, old: DocumentStatus) -> bool:
        """A newer revision is behind this one in the log. What is dead in the old index may be dead in the new one."""
        if new is None or new.revision < old.revision:
            return False
        if new.revision > old.revision:
            return True
        return new.state in SETTLED and (
            new.state != "dead-lettered" or old.state == "dead-lettered" or self._without_failed
        )
