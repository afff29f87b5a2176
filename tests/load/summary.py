"""What a load showed, in figures."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import httpx

from tests.load.driving import Reply
from tests.load.process import Look

MODELS = ("specialists", "initial", "arbitration")
MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Latencies in milliseconds, of answered cases; memory in MiB, of the service's processes.

    `overhead_p50` is the median of what callers waited beyond the models: see `overhead`.
    `cores` are those that the service kept busy, `caller_cores` those that its callers did.
    """

    requests: int
    statuses: dict[int, int]
    errors: int
    a_second: float
    p50: float
    p95: float
    p99: float
    overhead_p50: float
    processor_ms_a_case: float
    cores: float
    caller_cores: float
    memory_by_minute: tuple[float, ...]

    def lines(self) -> str:
        return "\n".join(f"{name:20} {value}" for name, value in asdict(self).items())


def figures(
    replies: Sequence[Reply], looks: Sequence[Look], seconds: float, caller_seconds: float
) -> Figures:
    """`seconds` is how long it took until all were answered, `caller_seconds` the processor time
    of the callers meanwhile; `looks` are at the service, the first and last at both ends.
    """
    answered = [reply for reply in replies if reply.status == httpx.codes.CREATED]
    used = looks[-1].processor_seconds - looks[0].processor_seconds if looks else 0.0
    p50, p95, p99 = _percentiles([reply.seconds for reply in answered])
    return Figures(
        requests=len(replies),
        statuses=dict(sorted(Counter(reply.status for reply in replies).items())),
        errors=sum(reply.is_error for reply in replies),
        a_second=round(len(answered) / seconds, 2),
        p50=p50,
        p95=p95,
        p99=p99,
        overhead_p50=_percentiles([overhead(reply) for reply in answered])[0],
        processor_ms_a_case=round(1000 * used / max(1, len(answered)), 1),
        cores=round(used / seconds, 2),
        caller_cores=round(caller_seconds / seconds, 2),
        memory_by_minute=_by_minute(looks),
    )


def overhead(reply: Reply) -> float:
    """Seconds that were no model's.

    Specialists and the first look run at the same time, so the longer of them counts, and then
    the arbitration. What remains is intake, retrieval (as far as it outlasted the first look),
    SQL, HTTP and whatever waited for a thread.
    """
    first = max(reply.stages.get("specialists", 0.0), reply.stages.get("initial", 0.0))
    return reply.seconds - first - reply.stages.get("arbitration", 0.0)


def growth(memory_by_minute: Sequence[float]) -> float:
    """How much more the last minute needed than the second: 0.05 is 5 %."""
    return memory_by_minute[-1] / memory_by_minute[1] - 1


def _percentiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Median, 95th and 99th percentile, in milliseconds; zeros of nothing."""
    if len(seconds) < 2:
        return (1000 * seconds[0],) * 3 if seconds else (0.0, 0.0, 0.0)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return round(1000 * cuts[49], 1), round(1000 * cuts[94], 1), round(1000 * cuts[98], 1)


def _by_minute(looks: Sequence[Look]) -> tuple[float, ...]:
    """The median of each whole minute, in MiB; the only one where it was none."""
    if not looks:
        return ()
    lasted = looks[-1].at - looks[0].at
    starts = [looks[0].at + MINUTE * n for n in range(max(1, round(lasted / MINUTE)) + 1)]
    minutes = [
        [look.memory_bytes for look in looks if start <= look.at < end]
        for start, end in pairwise(starts)
    ]
    return tuple(round(statistics.median(one) / 2**20, 1) for one in minutes if one)
