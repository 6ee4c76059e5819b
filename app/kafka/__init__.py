"""DOOR: the only place that says Kafka."""
