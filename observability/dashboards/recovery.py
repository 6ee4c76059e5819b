"""6 Recovery and guarantees: are take-overs fast, did the protocol lose anything, which zombies were met, where do duplicates come from."""

from observability.dashboards.panels import Board, lines, quantile, rate, total

BOARD = Board(
    "airavata-recovery", "6 Recovery and guarantees", "When something died: was it taken over in time, and was nothing lost or done twice?",
    [
        [
            lines("Take-overs", "Who took over?", "TakeoverSlow", ("{{group}}", total("airavata_takeovers_total", "group"))),
            lines("Gap", "Fast enough? p99 at most 3 s, 8 s where the broker forces long sessions.", "TakeoverSlow", ("{{group}} p99", quantile(0.99, "airavata_takeover_gap_seconds", "group", over="1h")), unit="s"),
            lines("Attempts sent again", "Whose owner fell silent?", "AttemptsAbandonedStorm", ("{{task_type}}", total("airavata_attempts_abandoned_total", "task_type"))),
        ],
        [
            lines("Rescued by the sweeper", "Did the protocol lose anything? Each one is a bug.", "SweeperRescued", ("{{kind}}", total("airavata_rescued_total", "kind")), zero=True),
            lines("Invariants violated", "Was something seen that the protocol excludes?", "InvariantViolated", ("{{invariant}}", total("airavata_invariant_violations_total", "invariant")), zero=True),
            lines("Zombies met", "Who came back, and was stopped?", "RelayFencingLoop", ("{{what}}", total("airavata_fenced_total", "what"))),
        ],
        [
            lines("Copies dropped", "Where do duplicates come from?", "DuplicateSuppressed", ("{{topic}}", rate("airavata_messages_total", "topic", 'verdict="duplicate",topic=~"$topic"')), unit="cps"),
            lines("Second starts turned away", "Would a job have run twice?", "DuplicateSuppressed", ("{{where}}", total("airavata_duplicates_suppressed_total", "where"))),
            lines("Facts that moved nothing", "Which facts came late?", "StuckWork", ("{{entity}} {{reason}}", rate("airavata_transitions_refused_total", "entity, reason")), unit="cps"),
        ],
        [
            lines("Halted partitions", "Does Kafka lack what was promised?", "PartitionHalted", ("{{topic}} {{reason}}", total("airavata_partition_halted", "topic, reason", 'topic=~"$topic"')), zero=True),
            lines("Commits of unknown outcome", "Did MySQL's answer get lost?", "RelayOutcomeUnknown", ("{{component}}", total("airavata_mysql_errors_total", "component", 'class="unknown_commit"'))),
            lines("New producer", "What does recovery of a shard cost?", "RelayOutcomeUnknown", ("p50", quantile(0.5, "airavata_relay_init_seconds", over="1h")), ("p99", quantile(0.99, "airavata_relay_init_seconds", over="1h")), unit="s"),
        ],
    ],
    annotations=("chaos",),
)  # fmt: skip
