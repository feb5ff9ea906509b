"""Where a sub-model goes when its device is lost, and when it goes home: pure functions of numbers.

Deploying gives each sub-model a home. A device that is lost for longer than a grace period loses what it
holds to one that answers, runs it and has room: the one with the most energy left, as in the paper's greedy
(`edvit_tf.plan.greedy`). A device that returns takes its own back, but not before it has answered for a
while that doubles with each of its recent falls, so that one that flaps moves nothing. When half of the
devices or more are lost it is more likely the network than they, and nothing moves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds, unless the name says otherwise."""

    grace: float = 2.0  # a device that is away for less is waited for
    first_stay: float = (
        10.0  # it answers for so long after its first fall before it takes back what is its own
    )
    longest_stay: float = 600.0
    most_falls: int = 3  # one that has fallen more often lately is given nothing more

    def stay(self, falls: int) -> float:
        """How long a device has to answer after so many falls."""
        return min(self.longest_stay, self.first_stay * 2 ** (min(falls, 32) - 1)) if falls else 0.0


DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Host:
    """A device as failover sees it.

    `trouble` says why it should be given nothing now (empty: nothing is wrong), `away` for how many seconds
    it has not answered at all (0: it does), `steady` for how many it has answered without a break, `falls`
    how often it was lost lately. A `drained` device is to hold nothing. Memory is in bytes, energy in joules.
    """

    id: str
    name: str
    trouble: str
    away: float
    steady: float
    falls: int
    drained: bool
    memory_bytes: int
    energy_joules: float
    joules_per_mac: float


@dataclass(frozen=True, slots=True)
class Part:
    """A sub-model: its home, who holds it, and by device the bytes that it takes or why it cannot run."""

    id: str
    macs: int
    home: str
    holder: str
    memory_bytes: Mapping[str, int]
    unfit: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Move:
    """A sub-model that should be held by another device (its id), and why."""

    submodel: str
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Option:
    """A device (its id) that could hold a sub-model, or the reason why it cannot."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to move; why nothing is moved at the moment, or empty; why a sub-model has nowhere to go."""

    moves: tuple[Move, ...]
    paused: str
    stuck: Mapping[str, str]


def plan(parts: Iterable[Part], hosts: Sequence[Host], policy: Policy = DEFAULT_POLICY) -> Plan:
    """Decide what moves now; costly sub-models first. The order of the arguments never matters."""
    now = {part.id: part for part in parts}
    if pause := paused(hosts, policy):
        return Plan((), pause, {})
    by_id = {host.id: host for host in hosts}
    moves: list[Move] = []
    stuck: dict[str, str] = {}
    for part in sorted(now.values(), key=lambda part: (-part.macs, part.id)):
        if _returns(part, by_id, policy):
            moves.append(Move(part.id, part.home, f"{_name(part.home, by_id)} is back"))
        elif reason := _leaves(part.holder, by_id, policy):
            best = _best(part, list(now.values()), hosts, policy)
            if best is None:
                stuck[part.id] = f"{reason}, and {_why_nowhere(part, list(now.values()), hosts, policy)}"
                continue
            moves.append(Move(part.id, best.id, reason))
        else:
            continue
        now[part.id] = _held_by(part, moves[-1].device)
    return Plan(tuple(moves), "", stuck)


def paused(hosts: Iterable[Host], policy: Policy = DEFAULT_POLICY) -> str:
    """Why nothing should be moved: half of the devices or more are lost. Empty when that is not so."""
    fleet = sorted((host for host in hosts if not host.drained), key=lambda host: (host.name, host.id))
    lost = [host for host in fleet if host.away >= policy.grace]
    if not lost or 2 * len(lost) < len(fleet):
        return ""
    names = ", ".join(host.name for host in lost)
    return (
        f"{len(lost)} of {len(fleet)} devices are lost ({names}), so nothing is moved: look at the network, "
        "or remove those that will not come back with `edvit-tf fleet remove`"
    )


def options(
    part: Part, parts: Iterable[Part], hosts: Iterable[Host], policy: Policy = DEFAULT_POLICY
) -> list[Option]:
    """For each device, by name, whether it could hold a sub-model now, and if not, why."""
    everything = list(parts)
    return [
        Option(host.id, _obstacle(part, host, everything, policy))
        for host in sorted(hosts, key=lambda host: (host.name, host.id))
    ]


def _obstacle(part: Part, host: Host, parts: Iterable[Part], policy: Policy) -> str:
    if host.drained:
        return "it is being drained"
    if host.trouble:
        return host.trouble
    if reason := part.unfit.get(host.id):
        return reason
    if host.id in (part.home, part.holder):
        return ""  # its place there is kept
    if host.falls > policy.most_falls:
        return f"it was lost {host.falls} times lately"
    needed, free = part.memory_bytes[host.id], free_bytes(host, parts)
    if needed > free:
        return f"it has {max(0, free) / _MEGABYTE:.1f} MB free and {needed / _MEGABYTE:.1f} are needed"
    return ""


def free_bytes(host: Host, parts: Iterable[Part]) -> int:
    """What a device has left beside what it holds and what it may take back; negative when it is too much."""
    return host.memory_bytes - sum(
        part.memory_bytes.get(host.id, 0) for part in parts if host.id in (part.home, part.holder)
    )


def _returns(part: Part, hosts: Mapping[str, Host], policy: Policy) -> bool:
    home = hosts.get(part.home)
    if part.holder == part.home or home is None or _obstacle(part, home, (), policy):
        return False
    return home.steady >= policy.stay(home.falls)


def _leaves(holder: str, hosts: Mapping[str, Host], policy: Policy) -> str:
    """Why a sub-model should leave the device that holds it; empty when it should stay."""
    host = hosts.get(holder)
    if host is None:
        return "its device is not in the fleet any more"
    if host.drained:
        return f"{host.name} is being drained"
    if host.away >= policy.grace:
        return f"{host.name} is lost ({host.trouble})"
    return ""


def _best(part: Part, parts: Sequence[Part], hosts: Iterable[Host], policy: Policy) -> Host | None:
    able = [host for host in hosts if host.id != part.holder and not _obstacle(part, host, parts, policy)]
    # Home first: it has the sub-model already.
    return min(
        able,
        key=lambda host: (
            host.id != part.home,
            -_energy_left(host, parts),
            -free_bytes(host, parts),
            host.id,
        ),
        default=None,
    )


def _energy_left(host: Host, parts: Iterable[Part]) -> float:
    held = sum(part.macs for part in parts if part.holder == host.id)
    return host.energy_joules - held * host.joules_per_mac


def _why_nowhere(part: Part, parts: Iterable[Part], hosts: Iterable[Host], policy: Policy) -> str:
    names = {host.id: host.name for host in hosts}
    reasons = [
        f"{names[option.device]}: {option.reason}"
        for option in options(part, parts, hosts, policy)
        if option.device != part.holder
    ]
    return "no other device can take it" + (f" ({'; '.join(reasons)})" if reasons else "")


def _held_by(part: Part, device: str) -> Part:
    return Part(part.id, part.macs, part.home, device, part.memory_bytes, part.unfit)


def _name(device: str, hosts: Mapping[str, Host]) -> str:
    return hosts[device].name
