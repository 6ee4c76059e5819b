"""Waiting outbox rows → Kafka, exactly once, one worker per shard."""
