"""From one integer a plan: what is launched when and under which key, which requests are repeated or wrong, how each task behaves, and what must come of it.

The plan is what is replayed: it is kept whole with the run, so that a generator that has changed since does not spoil an old failure. Nothing here touches a system;
times are seconds after the run's start. Shapes: the planner's graph on a fork host with the ledger program `effect`; by the planner `shape` chain, diamond,
wide 1-64-1 and layered random. Cancels belong into a launch's `cancel_at`; none is drawn, since the product cannot cancel yet.
"""

import base64
import hashlib
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Document = dict[str, Any]
Random = random.Random
HOSTS = (1, 2)
LAB, NEIGHBOUR = "lab", "neighbour"  # Tenants; a launch that names none is the lab's, which has the hosts.
WIDE = 64
REPEATED, MALFORMED = 0.1, 0.1
COMPLETED = {"state": "COMPLETED", "outcome": "NORMAL_COMPLETION"}
FAILED = {"state": "FAILED", "outcome": "INTERNAL"}


# ---- graphs of no-ops ---------------------------------------------------------------------------------------------------------------------------------
def chain(rng: Random, length: int = 0) -> list[str]:
    return [f"t{n}>t{n + 1}" for n in range(1, length or rng.randint(3, 10))]


def diamond(_: Random) -> list[str]:
    """Two facts race to one join."""
    return ["a>b", "a>c", "b>d", "c>d"]


def wide(_: Random, width: int = WIDE) -> list[str]:
    """Many facts in one batch, one join of all."""
    return [edge for n in range(width) for edge in (f"first>m{n}", f"m{n}>last")]


def layered(rng: Random, nodes: int = 0) -> list[str]:
    """3–40 nodes, small ones first; an edge goes from an earlier to a later layer. Every node but those of the first layer has a predecessor."""
    count, chance = nodes or 3 + int(37 * rng.random() ** 3), rng.uniform(0.1, 0.6)
    layer = sorted(rng.randrange(max(2, count // 3)) for _ in range(count))
    edges = []
    for to in range(count):
        before = [each for each in range(to) if layer[each] < layer[to]]
        drawn = [each for each in before if rng.random() < chance] or before[-1:]
        edges += [f"n{each}>n{to}" for each in drawn[-8:]] or [f"n{to}"]
    return edges


SHAPES: Mapping[str, Callable[[Random], list[str]]] = {"chain": chain, "diamond": diamond, "wide": wide, "layered": layered}


def behaviour(rng: Random, edges: Sequence[str], *, seconds: tuple[float, float], failing: float) -> tuple[list[str], Document]:
    """What each task does, and what must come of the whole: some sleep, one in a while fails once or twice and then succeeds, one fails for good."""
    names = sorted({name for edge in edges for name in edge.split(">")})
    words = [f"{name}:sleep_ms={int(1000 * rng.uniform(*seconds))}" for name in names]
    expect = COMPLETED
    if rng.random() < failing:
        words.append(f"{rng.choice(names)}:fail={rng.randint(1, 2)}")
    if rng.random() < failing / 2:
        words.append(f"{rng.choice(names)}:fail_for_good=1")
        expect = FAILED
    return words, expect


def graph(rng: Random, shape: str, *, edges: Sequence[str] = (), seconds: tuple[float, float] = (0.0, 0.3), failing: float = 0.3) -> Document:
    """A launch of the planner `shape`."""
    drawn = list(edges) or SHAPES[shape](rng)
    words, expect = behaviour(rng, drawn, seconds=seconds if shape != "wide" else (0.0, 0.05), failing=failing)
    return {"shape": shape, "application": "shape", "inputs": {"edges": " ".join(drawn), "behaviour": " ".join(words)}, "expect": expect}


# ---- the planner's graph, with the ledger program -----------------------------------------------------------------------------------------------------
MANNERS: Mapping[str, tuple[float, Document]] = {  # Weight, and what it comes to.
    "plain": (0.7, COMPLETED),
    "noisy": (0.1, COMPLETED),
    "exits": (0.1, {"state": "FAILED", "outcome": "APP_NONZERO_EXIT"}),
    "stubborn": (0.1, {"state": "FAILED", "outcome": "SCHEDULER_TIMEOUT"}),  # Overruns its wall time and ignores SIGTERM.
}
OVERRUN_SECONDS, WALL_SECONDS = 600, 3  # Longer than anything keeps the service from ending it.


def planned(rng: Random, *, seconds: tuple[float, float] = (0.0, 0.5), manner: str = "", host: int = 0, size: int | None = None) -> Document:
    """A launch of the planner's graph: one staged input of `size` bytes, the program, its outputs. Its result's bytes follow from the seed and the input."""
    manner = manner or rng.choices(list(MANNERS), [weight for weight, _ in MANNERS.values()])[0]
    seed, data = f"{rng.getrandbits(48):012x}", rng.randbytes(rng.choice((0, 19, 4096)) if size is None else size)
    overruns = manner == "stubborn"
    inputs = {
        "seed": seed, "seconds": OVERRUN_SECONDS if overruns else round(rng.uniform(*seconds), 3), "status": 3 if manner == "exits" else 0,
        "manner": manner if manner in {"noisy", "stubborn"} else "plain", "data": f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}",
    }  # fmt: skip
    expect = MANNERS[manner][1] | ({} if overruns else {"outputs": {"result": result_sha256(seed, data)}})
    return {
        "shape": "planner", "application": "effect", "host": host or rng.choice(HOSTS), "inputs": inputs, "cleanup_strategy": rng.choice(("NONE", "NONE", "ALWAYS")),
        "wall_time_seconds": WALL_SECONDS if overruns else 120, "expect": expect,
    }  # fmt: skip


def result_sha256(seed: str, data: bytes) -> str:
    """Of what effect.sh writes."""
    return hashlib.sha256(f"effect of {seed}\n{hashlib.sha256(data).hexdigest()}\n".encode()).hexdigest()


# ---- requests that must be refused ------------------------------------------------------------------------------------------------------------------
BAD: Mapping[str, Document] = {  # Sent to POST /experiments. `body`: changes to a good one; `raw`: bytes instead of JSON. Answers: docs/api.md.
    "no key": {"key": None, "body": {}, "status": 400, "code": "idempotency_key_missing"},
    "cut-off JSON": {"raw": '{"name": "x', "status": 400, "code": "malformed_json"},
    "a field too many": {"body": {"owner": "somebody"}, "status": 422, "code": "validation_failed"},
    "a name with a newline": {"body": {"name": "x\n#SBATCH -A y"}, "status": 422, "code": "validation_failed"},
    "a cycle": {"body": {"inputs": {"edges": "a>b b>a"}}, "status": 422, "code": "validation_failed"},
    "an edge twice": {"body": {"inputs": {"edges": "a>b a>b"}}, "status": 422, "code": "validation_failed"},
    "an input of the wrong type": {"body": {"inputs": {"edges": 7}}, "status": 422, "code": "validation_failed"},
    "an unknown interface": {"body": {"application_interface_id": "ifc_00000000000000000000000000"}, "status": 422, "code": "validation_failed"},
}


# ---- the whole ----------------------------------------------------------------------------------------------------------------------------------------
def draw(seed: int, *, count: int, seconds: float, weights: Mapping[str, float] | None = None) -> Document:
    """`count` launches spread over `seconds`; `weights`: of the shapes, the planner's graph included."""
    rng = Random(seed)
    shares = weights or {"planner": 0.4, "diamond": 0.25, "chain": 0.15, "layered": 0.15, "wide": 0.05}
    launches = []
    for number in range(count):
        shape = rng.choices(list(shares), list(shares.values()))[0]
        launch = planned(rng) if shape == "planner" else graph(rng, shape)
        launches.append(keyed(rng, seed, number, launch, at=rng.uniform(0.0, seconds)))
    launches = shared(sorted(launches, key=lambda each: float(each["at"])))
    bad = [{"at": round(rng.uniform(0.0, seconds), 3), "what": what, **BAD[what]} for what in rng.choices(sorted(BAD), k=max(1, int(count * MALFORMED)))]
    return {"seed": seed, "launches": launches, "bad_requests": sorted(bad, key=lambda each: float(each["at"])), "faults": []}


def keyed(rng: Random, seed: int, number: int, launch: Document, *, at: float = 0.0) -> Document:
    """A tenth is sent again under the same key, at once or later; an answer that never came is asked for again anyway."""
    repeats = [round(rng.uniform(0.0, 2.0), 3)] if rng.random() < REPEATED else []
    return {"name": f"e{number:04d}", "key": f"{seed}-{number}", "at": round(at, 3), "repeat_after": repeats, "cancel_at": None, **launch}


def shared(launches: Sequence[Document]) -> list[Document]:
    """Every third of those that need no host is the neighbour's."""
    hostless = itertools.count(1)
    return [each | {"tenant": NEIGHBOUR if each["application"] == "shape" and next(hostless) % 3 == 0 else LAB} for each in launches]


def eight(rng: Random, seed: int, first: int) -> list[Document]:
    """The eight of a case (docs/chaos.md): planner's graph on each host · diamond · one leaf fails once, one for good · chain · a repeated key."""
    fan = ["a>b", "a>c", "a>d"]
    leaves = graph(rng, "fan", edges=fan, failing=0.0) | {"inputs": {"edges": " ".join(fan), "behaviour": "b:sleep_ms=50 c:fail=1 d:fail_for_good=1"}, "expect": FAILED}
    launches = [planned(rng, manner="plain", host=1), planned(rng, manner="exits", host=2), *(graph(rng, "diamond", failing=0.0) for _ in range(3)), leaves]
    launches += [graph(rng, "chain", edges=chain(rng, 4), failing=0.0), graph(rng, "layered", failing=0.0)]
    made = [keyed(rng, seed, first + n, each) for n, each in enumerate(launches)]
    made[2]["repeat_after"] = [0.0]
    return shared(made)


def headline(seed: int, first: int, count: int = 40) -> list[Document]:
    """40 experiments: 16 of the planner's graph, 12 diamonds, 10 random of 12 nodes, 2 wide; tasks last 0.2–1 s."""
    rng, seconds = Random(seed * 1000 + first), (0.2, 1.0)
    kinds = ["planner"] * 16 + ["diamond"] * 12 + ["layered"] * 10 + ["wide"] * 2
    rng.shuffle(kinds)
    made: dict[str, Callable[[], Document]] = {
        "planner": lambda: planned(rng, seconds=seconds, manner="plain"),
        "diamond": lambda: graph(rng, "diamond", seconds=seconds, failing=0.0),
        "layered": lambda: graph(rng, "layered", edges=layered(rng, 12), seconds=seconds, failing=0.0),
        "wide": lambda: graph(rng, "wide", failing=0.0),
    }
    return shared([keyed(rng, seed, first + n, made[kind]()) for n, kind in enumerate(kinds[:count])])
