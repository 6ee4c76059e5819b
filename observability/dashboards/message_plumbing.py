"""3 Message plumbing: which shard stands, how long from commit to Kafka, are batches well shaped, did crash recovery act, who is behind and why."""

from observability.dashboards.panels import Board, buckets, heat, lines, mean, quantiles, rate, total

T = 'topic=~"$topic"'
BOARD = Board(
    "airavata-plumbing", "3 Message plumbing", "Where is a message, and what is in its way?",
    [
        [
            lines("Outbox rows", "Which shard stands?", "OutboxStalled", ("shard {{shard}}", total("airavata_outbox_rows", "shard", of="max"))),
            lines("Outbox age", "Since when?", "OutboxStalled", ("shard {{shard}}", total("airavata_outbox_oldest_age_seconds", "shard", of="max")), unit="s"),
            lines("Shards held", "Does one relay hold each shard? Each line must be 1.", "RelayShardUnheld", ("shard {{shard}}", f'{total("airavata_relay_shards_held", "shard")} or 0 * {total("airavata_outbox_rows", "shard", of="max")}')),
        ],
        [
            heat("Publish delay", "How long from a committed row to Kafka?", "OutboxSlow", buckets("airavata_relay_publish_delay_seconds", T)),
            lines("Publish delay", "The same, as promised: p99 below 100 ms.", "OutboxSlow", *quantiles("airavata_relay_publish_delay_seconds"), unit="s"),
            lines("Published", "What flows?", "OutboxSlow", ("{{topic}} {{outcome}}", rate("airavata_relay_rows_total", "topic, outcome", T)), unit="cps"),
        ],
        [
            lines("Transaction time", "What does a Kafka transaction cost?", "OutboxSlow", *quantiles("airavata_relay_transaction_seconds"), unit="s"),
            lines(
                "Shape of batches", "Does the cost come from partitions? It grows with them, not with rows.", "OutboxSlow", ("partitions", mean("airavata_relay_batch_partitions")),
                ("rows", mean("airavata_relay_batch_rows")),
            ),
            lines("How the relay wakes", "Do nudges arrive?", "OutboxSlow", ("{{by}}", rate("airavata_relay_wakeups_total", "by")), unit="cps"),
        ],
        [
            lines("New producers", "How often was the outcome of a transaction unknown?", "RelayOutcomeUnknown", ("{{reason}}", total("airavata_relay_producer_resets_total", "reason"))),
            lines("Fenced", "Did a zombie relay come back?", "RelayFencingLoop", ("{{what}}", total("airavata_fenced_total", "what"))),
            lines("Recovered rows", "Did recovery find rows that Kafka had already?", "RelayOutcomeUnknown", ("rows", "sum(airavata_relay_recovered_rows_total)")),
        ],
        [
            lines("Rows not applied", "Who is behind?", "ConsumerStalled", ("{{group}} {{topic}}", total("airavata_consumer_lag_rows", "group, topic", T))),
            lines("Oldest not applied", "Since when?", "ConsumerStalled", ("{{group}} {{topic}}", total("airavata_consumer_oldest_age_seconds", "group, topic", T, of="max")), unit="s"),
            lines("Blocked offsets", "Is an open transaction in the way?", "OpenTransactionBlocks", ("{{group}} {{topic}}", total("airavata_consumer_blocked_offsets", "group, topic", T, of="max")), zero=True),
        ],
        [
            lines("What becomes of messages", "Are they applied, or set aside?", "RequeueStorm", ("{{verdict}}", rate("airavata_messages_total", "verdict", T)), unit="cps"),
            lines("Put back", "Why are messages put back?", "RequeueStorm", ("{{topic}} {{reason}}", total("airavata_requeues_total", "topic, reason", T))),
            lines("Dead letters", "Where do they come from?", "DeadLettersWaiting", ("{{topic}}", total("airavata_dead_letters", "topic", T, of="max")), zero=True),
        ],
        [
            lines("Partitions nobody owns", "Is every partition owned?", "PartitionUnowned", ("{{topic}}", f"max by (topic) (airavata_partitions_total{{{T}}}) - sum by (topic) (airavata_partitions_held{{{T}}})"), zero=True),
            lines("Halted", "Which partitions stand on purpose?", "PartitionHalted", ("{{topic}} {{reason}}", total("airavata_partition_halted", "topic, reason", T)), zero=True),
            lines("Rebalances", "Do partitions wander?", "PartitionUnowned", ("{{kind}}", rate("airavata_rebalances_total", "kind")), unit="cps"),
        ],
    ],
)  # fmt: skip
