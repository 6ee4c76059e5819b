"""R7 in a thread of its own: what was published is deleted while the next batch is on its way.

Invariant: `in_flight` names every published row whose delete is not surely committed. Whoever selects copies it *before* the select starts and leaves these rows out: read
after it, a row whose delete committed in between would be sent again. Every later state record names them too, so R3 of a successor finds them whatever the crash.
"""

import threading
from collections.abc import Callable, Mapping

from app.errors import Transient
from observability import logs

LUMP_SECONDS, FEW_ROWS = 0.05, 50  # At low load deletes wait for company; nobody waits for them.
ROOM_SECONDS = 0.2  # Then the lease has its turn.
CLOSE_SECONDS = 15.0  # A delete under way ends within the driver's time-outs.


class Settler:
    """`delete(rows, seq)` is R7: rows by id and mid, `settled` = seq, COMMIT. Idempotent: it is repeated until its outcome is known."""

    def __init__(self, delete: Callable[[Mapping[int, bytes], int], None], *, name: str) -> None:
        self.delete, self.log, self.changed = delete, logs.logger("relay"), threading.Condition()
        self.rows: dict[int, bytes] = {}
        self.seq, self.closing = 0, False
        self.fault: Exception | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def in_flight(self, most: int) -> dict[int, bytes] | None:
        """A copy: id → mid. None: `most` or more, too many to add to. Raises what ended the thread."""
        with self.changed:
            room = self.changed.wait_for(lambda: len(self.rows) < most or self.fault is not None, ROOM_SECONDS)
            if self.fault is not None:
                raise self.fault
            return dict(self.rows) if room else None

    def published(self, rows: Mapping[int, bytes], seq: int) -> None:
        """Their transaction has surely committed, and its record `seq` names them and all that was in flight."""
        with self.changed:
            self.rows |= rows
            self.seq = seq
            self.changed.notify_all()

    def close(self) -> None:
        """Deletes what is in flight if it can; what it cannot, R3 will."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        delay = LUMP_SECONDS
        while (taken := self._take()) is not None:
            try:
                self.delete(*taken)
            except Transient as fault:
                self.log.warning("published rows wait to be deleted", count=len(taken[0]), fault=fault)
                with self.changed:
                    if self.changed.wait_for(lambda: self.closing, delay):
                        return
                delay = min(delay * 2, 2.0)
                continue
            except Exception as fault:  # Told to the shard's thread, which ends by it.
                self.fault = fault
                return
            delay = LUMP_SECONDS
            with self.changed:
                self.rows = {each: mid for each, mid in self.rows.items() if each not in taken[0]}
                self.changed.notify_all()

    def _take(self) -> tuple[dict[int, bytes], int] | None:
        """What is in flight, after a moment for more of it. None: closed and empty."""
        with self.changed:
            self.changed.wait_for(lambda: self.rows or self.closing)
            self.changed.wait_for(lambda: len(self.rows) >= FEW_ROWS or self.closing, LUMP_SECONDS)
            return (dict(self.rows), self.seq) if self.rows else None
