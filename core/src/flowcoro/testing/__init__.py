"""What tests of applications and plugins need.

`make_host` and `make_context` give a plugin host with autoload off and a context to
attach components to. `flowcoro.testing.contracts` holds the contract suite of each of
the core's extension points. The pytest plugin (`flowcoro.testing.pytest_plugin`) is
found by pytest itself and offers the fixtures `plugin_host` and `app_context`.

The fault tools ask what happens when things go wrong, of any asyncio code and on any asyncio
loop: `cancel_at_each_await` cancels a coroutine wherever it can be cancelled, and `FaultProxy`
stands between a client and its server and delays, cuts, corrupts or withholds their bytes.

`SimulatedLoop` runs a program in virtual time, in an order and with a network and a disk that come
from a seed; `simulate` does so for many seeds, and one that fails replays.

Features ship the suites of their own extension points in their own `testing` module.
"""

from flowcoro.testing._cancel import (
    CancelFailure,
    CancelManner,
    CancelPoint,
    CancelReport,
    cancel_at_each_await,
)
from flowcoro.testing._faults import Cut, Faults
from flowcoro.testing._host import make_context, make_host
from flowcoro.testing._links import ProxyStats
from flowcoro.testing._proxy import AcceptMode, FaultProxy
from flowcoro.testing._sim import (
    Conditions,
    Disk,
    DiskFile,
    DiskStat,
    Link,
    Network,
    SimulatedDisk,
    SimulatedFile,
    SimulatedLoop,
    SimulatedRun,
    SimulationFailure,
    SimulationReport,
    SimulationStuck,
    Trace,
    simulate,
)

__all__ = [
    "AcceptMode",
    "CancelFailure",
    "CancelManner",
    "CancelPoint",
    "CancelReport",
    "Conditions",
    "Cut",
    "Disk",
    "DiskFile",
    "DiskStat",
    "FaultProxy",
    "Faults",
    "Link",
    "Network",
    "ProxyStats",
    "SimulatedDisk",
    "SimulatedFile",
    "SimulatedLoop",
    "SimulatedRun",
    "SimulationFailure",
    "SimulationReport",
    "SimulationStuck",
    "Trace",
    "cancel_at_each_await",
    "make_context",
    "make_host",
    "simulate",
]
