"""Where a message goes. An experiment is given a partition once, at launch, and its processes inherit it; commands are spread by task.

slot = CRC32(id) mod width, partition = slot × 37 mod count: 37 is coprime to 100, so any contiguous assignment of partitions gets its fair share of the
`width` busy ones. Few partitions because a Kafka transaction costs per partition touched (docs: performance rules).
"""

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True)
class Placement:
    partitions: int = 100
    width: int = 16
    shards: int = 2

    def of_experiment(self, experiment_id: str) -> int:
        return crc32(experiment_id.encode()) % self.width * 37 % self.partitions

    of_task = of_experiment

    def shard(self, partition: int) -> int:
        """The one relay shard that writes this partition number."""
        return partition % self.shards
