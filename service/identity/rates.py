"""How much each caller may ask: a sliding window in this process's memory."""

import math
import re
import time
from dataclasses import dataclass

import limits
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from service.errors import Misconfigured
from service.identity.caller import Caller

_RATE = re.compile(r"[1-9]\d{0,8}/(second|minute|hour|day)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left to a caller: `remaining` of `quota` requests, until `reset_seconds` pass."""

    quota: int
    window_seconds: int
    remaining: int
    reset_seconds: int
    is_exceeded: bool


class Rates:
    """Counts the requests of every caller against their own rate, or else the default one."""

    def __init__(self, default: str) -> None:
        self._default = default
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def take(self, caller: Caller) -> Allowance:
        """Counts one request; a request too many is not counted, only told."""
        rate = parse(caller.rate or self._default)
        is_within = await self._limiter.hit(rate, caller.name)
        reset_at, remaining = await self._limiter.get_window_stats(rate, caller.name)
        return Allowance(
            quota=rate.amount,
            window_seconds=rate.get_expiry(),
            remaining=remaining,
            reset_seconds=max(1, math.ceil(reset_at - time.time())),
            is_exceeded=not is_within,
        )


def parse(rate: str) -> limits.RateLimitItem:
    """A rate such as `600/minute` or `10/second`; raises Misconfigured for anything else."""
    if not _RATE.fullmatch(rate):
        raise Misconfigured(f"{rate[:40]!r} is no rate: write 600/minute")
    return limits.parse(rate)
