"""Processes: several workers for one application, restart after a crash, reload.

Layers: `_channel` (what parent and worker tell each other), `_supervisor` (the parent's
side), `_reload` (watching files). Nothing here knows what an application is.
"""

from flowcoro.workers._channel import CHANNEL_VARIABLE, COUNT_VARIABLE, WorkerChannel
from flowcoro.workers._reload import watch
from flowcoro.workers._supervisor import Supervisor

__all__ = ["CHANNEL_VARIABLE", "COUNT_VARIABLE", "Supervisor", "WorkerChannel", "watch"]
