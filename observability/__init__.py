"""Traces, metrics, logs: what operators see, and how it stays true. This is the table of every span.

Metrics: `catalogue.py` is their table, as data: name, kind, labels with their closed sets, buckets, who emits it, and the question it answers. A test compares it with what a real
Prometheus scraped from all processes. `alerts/` has the rules, docs/runbooks a page for each, `dashboards/` what builds the dashboards.

Parents say where something belongs, links say what caused it. An experiment's trace has a skeleton made from rows when it has ended (service `airavata-experiments`); everything else hangs
directly on it, so a crash costs leaves and never branches. Batches are traces of their own. Unsampled means that no span is made. Every span that belongs to an experiment has
`airavata.gateway.id`, `.experiment.id`, `.process.id`, and from a task on `.task.id`, `.task.type`, `.task.attempt`, `airavata.attempt.epoch`. Never in a span: script text, tokens, file contents, account
names, paths below a home, SQL text or its values. Values are cut at 256 characters. How the context crosses: app/messages/trace.py.

    span                        kind      service    below                     what it says besides
    experiment run              INTERNAL  skeleton   the launch's request      outcome, attempts, takeovers; airavata.keep: why it is here although it may not be sampled
    task {type}                 INTERNAL  skeleton   experiment run            outcome, state; link: the attempt before
    wait {RETRY_WAIT|BLOCKED|IN_DOUBT}  INTERNAL  skeleton  experiment run     condition, reason
    job run                     INTERNAL  skeleton   task JOB_SUBMISSION       job id, token, host, exit code; the job's own spans go below it
    {METHOD} {route}            SERVER    api        the caller's span         status, idempotency fresh|replayed; not for probes. A repeated launch: link to the first
    unit of work {name}         INTERNAL  api        request                   rows written to the outbox; event `commit`
    {VERB} {table}              CLIENT    any        unit of work, apply batch  operation, table, rows of a bulk; driver's error number
    record task-event           INTERNAL  api        attempt or experiment     stored, visible to clients; link: the request that brought it
    send {topic}                CLIENT    relay      attempt or experiment     rows read → Kafka commit returned; link: send batch
    send batch                  CLIENT    relay      (own trace)               rows, partitions, shard, outcome committed|aborted|fenced|unknown; links: its sends
    process {topic}             CONSUMER  any group  attempt or experiment     poll → COMMIT; offset, key, verdict applied|late|duplicate|requeued|dead_letter, wait_ms; links: cause, batch
    apply batch                 INTERNAL  any group  (own trace)               messages, partitions, tries; links: its messages
    ssh connect                 CLIENT    executor   attempt                   host, outcome ok|failed|unknown
    ssh exec {verb}             CLIENT    executor   attempt                   exit code
    ssh put, ssh get            CLIENT    executor   attempt                   bytes, reused
    ssh more                    CLIENT    executor   attempt                   what came after the 50th operation of an attempt, and how many they were
    watch host                  CLIENT    executor   (own trace)               one look that found something new: jobs asked, changed; links: their `job run`
    POST /internal/v1/task-events  CLIENT  event-sink  (own trace)             events handed over; links: their `process`; the API's SERVER span is below it
"""

SPANS = (  # Patterns of fnmatch, as the table says.
    "experiment run", "task *", "wait RETRY_WAIT", "wait BLOCKED", "wait IN_DOUBT", "job run", "GET *", "HEAD *", "POST *", "PUT *", "PATCH *", "DELETE *", "unit of work *", "SELECT*", "INSERT *", "UPDATE *",
    "record task-event", "send *", "send batch", "process *", "apply batch", "ssh connect", "ssh exec *", "ssh put", "ssh get", "ssh more", "watch host",
)  # fmt: skip
