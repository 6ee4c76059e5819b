"""Every nemesis of the specification by its number: those we have, and those we do not, by name and with the reason. No number is left out in silence."""

from collections.abc import Mapping

from tests.chaos.nemeses import brokers, bystanders, databases, hosts, machines, messages, processes, relays, roads
from tests.chaos.nemeses.nemesis import Nemesis

NEMESES: Mapping[str, type[Nemesis]] = {
    each.name: each
    for each in (
        processes.Killed, processes.Frozen, processes.FrozenWithLocks, processes.Everything,
        databases.DatabaseKilled, databases.DatabaseFrozen, databases.ReadOnly, databases.RogueSession, databases.CommitLost,
        relays.TwoRelays, relays.LateEndTxn, relays.AnswerLost, relays.BeyondItsTime,
        brokers.BrokerDown, brokers.MemoryLost, roads.Cut, roads.Silence, roads.DiesInTheCommand, roads.Swizzle,
        messages.CopiesAndOffsets, messages.RebalanceStorm, messages.Poison, machines.Starved, machines.DiskFull,
        hosts.HostDies, hosts.SshdRefuses, bystanders.Nudges,
    )
}  # fmt: skip

UNDECIDED: Mapping[str, str] = {
    "N11": "coordinators move: needs three brokers in every run; one such test stands in tests/nemeses/test_three_brokers.py",
    "N20": "slow disk: strace on mysqld and broker slows every system call beyond use on two cores; comes with the nightly lane",
    "N22": "I/O error: injected by strace, as N20",
    "N23": "clocks: needs libfaketime, which is not among the packages that `make bootstrap` installs",
    "N28": "slurmctld killed after sbatch: batch systems are not built yet",
    "N29": "batch system lies: batch systems are not built yet",
    "N34": "upgrade half-way: never by chance, but in a part of its own: `python -m tests.chaos rolling`",
}
