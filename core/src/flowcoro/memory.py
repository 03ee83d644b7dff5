"""Memory and objects that are used again: `BufferPool` and `ObjectPool`.

This module is the Python face of `core/native/include/flowcoro/memory`. `BufferPool` hands
out bytes of one size, which `memoryview` and all that takes bytes-like objects use without a
copy; `ObjectPool` keeps Python objects that are costly to make. Both count what is in use,
so that leaks show. No call waits: waiting for a free one belongs to the layers above, which
know the event loop.

```python
pool = BufferPool(64 * 1024, max_buffers=16)
if (buffer := pool.try_acquire()) is not None:
    with buffer, memoryview(buffer) as view:
        count = socket.recv_into(view)
```
"""

from flowcoro._native import Buffer, BufferPool, Lease, ObjectPool, ObjectPoolStats, PoolStats

__all__ = ["Buffer", "BufferPool", "Lease", "ObjectPool", "ObjectPoolStats", "PoolStats"]
