"""What stops us, as a tree whose first split is *try again or not*.

    AiravataError
    ├─ Transient            the same call may succeed later; nothing of it happened
    │  ├─ StoreUnavailable  MySQL or Kafka is away, read-only, full or shutting down
    │  ├─ Contention        deadlock or lock wait: repeat the whole unit of work
    │  └─ OutcomeUnknown    it may have happened: look at the unit's witness, never assume
    └─ Permanent            repeating it changes nothing
       ├─ Misconfigured     settings, secrets, schema or server are not as they must be (exit 78)
       ├─ Fenced            somebody newer owns what we held: stop, touch nothing
       ├─ Unreadable        bytes that are no message of ours, or of a version we do not know
       ├─ Illegal           a (state, fact) pair that the state table calls an error
       └─ InvariantViolated what the protocol excludes was seen: a bug or a server that lost memory (exit 70)

Outcomes of remote work are values, not exceptions (app/workflow/execution.py). Problems of HTTP requests live in app/api/problems.py.
"""

EXIT_OK = 0
EXIT_BUG = 70
EXIT_FENCED = 75
EXIT_MISCONFIGURED = 78


class AiravataError(Exception):
    """Root of everything this system raises on purpose."""


class Transient(AiravataError):
    """Try again: nothing happened, or (OutcomeUnknown) a look will tell."""


class StoreUnavailable(Transient):
    """MySQL or Kafka cannot serve now. Wait with backoff, say so, go on when it returns."""


class Contention(Transient):
    """Deadlock (1213) or lock wait (1205): everything is rolled back, repeat the unit of work."""


class OutcomeUnknown(Transient):
    """The connection ended while COMMIT was on its way. Resolve by a locking read of the unit's witness."""


class Permanent(AiravataError):
    """Do not try again."""


class Misconfigured(Permanent):
    """The process must not run like this. The text says in one line what to do. Exit code 78."""


class Fenced(Permanent):
    """A newer owner exists. Stop and touch nothing."""


class Unreadable(Permanent):
    """Not a message of ours, or of a schema version from the future."""


class Illegal(Permanent):
    """The state table has no row for this pair."""


class InvariantViolated(Permanent):
    """The protocol excludes what was seen. Never worked around; always visible."""
