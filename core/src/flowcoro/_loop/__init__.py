"""The event loop over the native reactor.

What is hot (ready queue, timers, polling, wake-up) is in `flowcoro._native`; what is not comes from
asyncio. What belongs here: how the two are joined. Public names are `flowcoro.Loop` and those of
`flowcoro.loops`.
"""

from flowcoro._loop._loop import Loop
from flowcoro._loop._stalls import Stall, StallFrame, StallHandler
from flowcoro._loop._stats import LoopStats

__all__ = ["Loop", "LoopStats", "Stall", "StallFrame", "StallHandler"]
