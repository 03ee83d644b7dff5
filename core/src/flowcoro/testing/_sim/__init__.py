"""The simulated loop, its network and its disk, and running a program on it for many seeds.

What belongs here: simulation, and nothing of FlowCoro's own that is simulated. `_loop` has order
and time, `_network`, `_stream`, `_datagram` and `_server` have who talks to whom, `_disk` what is
kept, `_simulate` the runs.
"""

from flowcoro.testing._sim._conditions import Conditions, Link
from flowcoro.testing._sim._disk import SimulatedDisk, SimulatedFile
from flowcoro.testing._sim._disk_types import Disk, DiskFile, DiskStat
from flowcoro.testing._sim._errors import SimulationStuck
from flowcoro.testing._sim._loop import SimulatedLoop
from flowcoro.testing._sim._network import Network
from flowcoro.testing._sim._simulate import (
    SimulatedRun,
    SimulationFailure,
    SimulationReport,
    simulate,
)
from flowcoro.testing._sim._trace import Trace

__all__ = [
    "Conditions",
    "Disk",
    "DiskFile",
    "DiskStat",
    "Link",
    "Network",
    "SimulatedDisk",
    "SimulatedFile",
    "SimulatedLoop",
    "SimulatedRun",
    "SimulationFailure",
    "SimulationReport",
    "SimulationStuck",
    "Trace",
    "simulate",
]
