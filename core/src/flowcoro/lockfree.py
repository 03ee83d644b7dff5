"""Lock-free containers: bounded, never waiting, usable from any thread.

This module is the Python face of `core/native/include/flowcoro/lockfree`. Each container
offers `try_` calls only, which return at once; waiting belongs to the layers above, which
know the event loop. The protocol, the memory orders and the progress guarantee of each
container stand at the top of its header.

The calls hold the GIL; on a free-threaded interpreter importing this module turns it on.
"""

from flowcoro._native import Queue

__all__ = ["Queue"]
