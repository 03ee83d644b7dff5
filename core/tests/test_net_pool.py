"""`ConnectionPool`: who gets what, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import anyio
import pytest

from fault_cases import echo_server, run_on
from flowcoro import reactor
from flowcoro.net import ConnectionPool, PoolFullError, PoolStats, TcpClient
from flowcoro.testing import FaultProxy
from pool_cases import Connection, Peer, check_invariants, in_virtual_time, turns

Pool = ConnectionPool[Connection]


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        in_virtual_time(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


async def gets(pool: Pool, order: list[int], number: int, **options: Any) -> Connection:
    connection = await pool.get(**options)
    order.append(number)
    return connection


@virtual
async def test_a_connection_is_lent_and_used_again() -> None:
    peer = Peer()
    async with Pool(peer.connect) as pool:
        assert peer.connects == 0
        async with pool.acquire() as first:
            assert pool.stats().borrowed == 1
        async with pool.acquire() as second:
            assert second is first
        assert pool.stats() == PoolStats(
            max_size=10,
            size=1,
            idle=1,
            borrowed=0,
            connecting=0,
            checking=0,
            closing=0,
            waiting=0,
            acquired=2,
            reused=1,
            opened=1,
            closed=0,
            failures=0,
            check_failures=0,
            timeouts=0,
            waited_seconds=0.0,
        )
    assert peer.open == 0
    assert first.closes == 1


@virtual
async def test_what_was_used_last_is_lent_first() -> None:
    peer = Peer()
    async with Pool(peer.connect) as pool:
        a, b, c = [await pool.get() for _ in range(3)]
        for each in (b, c, a):
            await pool.release(each)
        again = [await pool.get() for _ in range(3)]
        assert [each.number for each in again] == [a.number, c.number, b.number]
        for each in again:
            await pool.release(each)


@virtual
async def test_first_come_first_served_and_no_barging() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=1) as pool:
        order: list[int] = []
        held = await pool.get()
        tasks = [asyncio.create_task(gets(pool, order, number)) for number in range(5)]
        await turns()
        assert pool.stats().waiting == 5
        await pool.release(held)
        # Nothing is at rest now, though the waiter has not run yet: a newcomer waits.
        late = asyncio.create_task(gets(pool, order, 5))
        for each in [*tasks, late]:
            await pool.release(await each)
        assert order == [0, 1, 2, 3, 4, 5]
        assert pool.stats().opened == 1


@virtual
async def test_what_comes_back_serves_whose_connect_is_slow() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=2) as pool:
        held = await pool.get()
        gate = peer.gates["connect"] = asyncio.Event()
        order: list[int] = []
        first = asyncio.create_task(gets(pool, order, 0))
        await turns()
        second = asyncio.create_task(gets(pool, order, 1))
        await turns()
        assert pool.stats().connecting == 1
        await pool.release(held)
        assert await first is held
        gate.set()
        other = await second
        assert order == [0, 1]
        await pool.release(held)
        await pool.release(other)


@virtual
async def test_a_timeout_tells_what_was_waited_for() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=1, acquire_timeout=30, name="the shop's") as pool:
        held = await pool.get()
        began = now()
        with pytest.raises(TimeoutError) as caught:
            await pool.get()
        assert now() == pytest.approx(began + 30)
        assert str(caught.value) == (
            "the shop's: no connection within 30 s: all places are taken (max_size 1, borrowed 1, "
            "idle 0, connecting 0, checking 0, closing 0, waiting 0)"
        )
        with pytest.raises(TimeoutError, match=r"within 0\.5 s"):
            async with pool.acquire(timeout=0.5):
                pass
        assert now() == pytest.approx(began + 30.5)
        assert pool.stats().timeouts == 2
        assert pool.stats().waited_seconds == pytest.approx(30.5)
        await pool.release(held)
        assert pool.stats().idle == 1


@virtual
async def test_who_gives_up_leaves_the_connect_to_the_next() -> None:
    peer = Peer()
    peer.delay = lambda step: 5.0 if step == "connect" else 0.0
    async with Pool(peer.connect, acquire_timeout=1) as pool:
        with pytest.raises(TimeoutError, match="still on its way"):
            await pool.get()
        connection = await pool.get(timeout=math.inf)
        assert peer.connects == 1
        await pool.release(connection)
    assert peer.open == 0


@virtual
async def test_no_timeout_is_no_timer() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=1, max_lifetime=math.inf, acquire_timeout=None) as pool:
        held = await pool.get()
        task = asyncio.create_task(pool.get())
        await asyncio.sleep(100_000)
        await pool.release(held)
        assert await task is held
        await pool.release(held)


@virtual
async def test_max_waiters() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=1, max_waiters=1) as pool:
        held = await pool.get()
        task = asyncio.create_task(pool.get())
        await turns()
        with pytest.raises(PoolFullError, match="1 callers wait already"):
            await pool.get()
        await pool.release(held)
        await pool.release(await task)
    async with Pool(peer.connect, max_size=1, max_waiters=0) as pool:
        peer.delay = lambda step: 1.0
        first = asyncio.create_task(pool.get())  # one is opened for it: that is no waiting
        await turns()
        with pytest.raises(PoolFullError):
            await pool.get()
        await pool.release(await first)


@virtual
async def test_a_failure_goes_to_who_asked() -> None:
    peer = Peer()
    peer.fail = [ConnectionRefusedError("nobody there")]
    async with Pool(peer.connect, max_size=2) as pool:
        results = await asyncio.gather(*(pool.get() for _ in range(2)), return_exceptions=True)
        assert isinstance(results[0], ConnectionRefusedError)
        assert isinstance(results[1], Connection)
        assert pool.stats().failures == 1
        await pool.release(results[1])
        check_invariants(pool, peer)


@virtual
async def test_others_try_on_their_own() -> None:
    peer = Peer()
    peer.fail = [OSError(number) for number in range(1, 4)]
    async with Pool(peer.connect, max_size=1) as pool:
        order: list[int] = []
        tasks = [asyncio.create_task(gets(pool, order, number)) for number in range(4)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(each) for each in results[:3]] == ["1", "2", "3"]
        assert isinstance(results[3], Connection)
        assert peer.connects == 4
        await pool.release(results[3])


@virtual
async def test_a_thousand_fail_one_after_the_other() -> None:
    async def connect() -> Connection:
        raise OSError("no")

    async with Pool(connect, max_size=1) as pool:
        results = await asyncio.gather(*(pool.get() for _ in range(1000)), return_exceptions=True)
        assert all(isinstance(each, OSError) for each in results)
        assert pool.stats().failures == 1000


@virtual
async def test_connects_that_cancel_themselves_or_take_too_long() -> None:
    peer = Peer()
    peer.fail = [asyncio.CancelledError()]
    async with Pool(peer.connect, connect_timeout=3) as pool:
        with pytest.raises(ConnectionAbortedError, match="was cancelled"):
            await pool.get()
        peer.delay = lambda step: 5.0
        began = now()
        with pytest.raises(TimeoutError, match="no connection was opened within 3 s"):
            await pool.get()
        assert now() == pytest.approx(began + 3)
        assert pool.stats().failures == 2
        assert pool.stats().size == peer.open == 0


@virtual
async def test_the_same_object_twice_is_refused() -> None:
    one = Connection(Peer(), 0)

    async def connect() -> Connection:
        return one

    async with Pool(connect) as pool, pool.acquire():
        with pytest.raises(RuntimeError, match="an object that is in the pool"):
            await pool.get()


@virtual
async def test_a_block_that_raises_discards() -> None:
    peer = Peer()
    async with Pool(peer.connect) as pool:
        with pytest.raises(ValueError, match="oh"):
            async with pool.acquire():
                raise ValueError("oh")
        await turns()
        assert (peer.opened, peer.open) == (1, 0)
    async with Pool(peer.connect, discard_on_error=False) as pool:
        with pytest.raises(ValueError, match="oh"):
            async with pool.acquire():
                raise ValueError("oh")
        assert pool.stats().idle == 1

    def only_os_errors(error: BaseException) -> bool:
        return isinstance(error, OSError)

    async with Pool(peer.connect, discard_on_error=only_os_errors) as pool:
        for error in (ValueError(), OSError()):
            with pytest.raises(type(error)):
                async with pool.acquire():
                    raise error
        await turns()
        assert pool.stats().opened == pool.stats().closed == 1


@virtual
async def test_a_rule_that_raises_itself_discards() -> None:
    def rule(error: BaseException) -> bool:
        raise KeyError("rule")

    peer = Peer()
    async with Pool(peer.connect, discard_on_error=rule) as pool:
        with pytest.raises(KeyError, match="rule"):
            async with pool.acquire():
                raise ValueError
        await turns()
        assert pool.stats().size == 0


@virtual
async def test_broken_ones_are_closed_and_replaced() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=1) as pool:
        first = await pool.get()
        waiting = asyncio.create_task(pool.get())
        await turns()
        await pool.release(first, broken=True)
        second = await waiting
        assert second.number == 1
        pool.mark_broken(second)
        await pool.release(second)
        async with pool.acquire() as third:
            assert third.number == 2
            pool.mark_broken(third)
        await turns()
        assert pool.stats().size == 0
        assert peer.most == 1


@virtual
async def test_only_what_is_borrowed_can_be_given_back() -> None:
    peer = Peer()
    async with Pool(peer.connect) as pool:
        connection = await pool.get()
        await pool.release(connection)
        with pytest.raises(ValueError, match="<connection 0> is not borrowed"):
            await pool.release(connection)
        with pytest.raises(ValueError, match="not borrowed"):
            pool.mark_broken(Connection(peer, 7))


@virtual
async def test_a_check_after_rest() -> None:
    peer = Peer()
    async with Pool(peer.connect, check=peer.check, check_after=30, max_size=1) as pool:
        async with pool.acquire() as first:
            pass
        await asyncio.sleep(29)
        async with pool.acquire() as second:
            assert second is first
        assert peer.checks == 0
        await asyncio.sleep(30)
        async with pool.acquire() as third:
            assert third is first
        assert peer.checks == 1
        peer.dead.add(0)
        await asyncio.sleep(30)
        async with pool.acquire() as fourth:
            assert fourth.number == 1
        assert pool.stats().check_failures == 1
        assert peer.most == 1


@virtual
async def test_checks_that_raise_or_hang_or_cancel_themselves() -> None:
    peer = Peer()

    async def check(connection: Connection) -> bool:
        if connection.number == 0:
            raise OSError("reset")
        if connection.number == 1:
            await asyncio.sleep(100)
        if connection.number == 2:
            raise asyncio.CancelledError
        return True

    async with Pool(peer.connect, check=check, check_after=0, check_timeout=5) as pool:
        four = [await pool.get() for _ in range(4)]
        for each in reversed(four):
            await pool.release(each)
        began = now()
        connection = await pool.get()
        assert connection.number == 3
        assert now() == pytest.approx(began + 5)
        assert pool.stats().check_failures == 3
        await pool.release(connection)


@virtual
async def test_many_check_at_the_same_time() -> None:
    peer = Peer()
    async with Pool(peer.connect, check=peer.check, check_after=0, max_size=4) as pool:
        four = [await pool.get() for _ in range(4)]
        for each in four:
            await pool.release(each)
        peer.delay = lambda step: 1.0
        began = now()
        again = await asyncio.gather(*(pool.get() for _ in range(4)))
        assert now() == pytest.approx(began + 1)
        for each in again:
            await pool.release(each)


@virtual
async def test_rest_and_age_have_limits() -> None:
    peer = Peer()
    async with Pool(peer.connect, min_size=1, max_idle=60, max_lifetime=1000) as pool:
        assert peer.connects == 1
        three = [await pool.get() for _ in range(3)]
        for each in three:
            await pool.release(each)
        await asyncio.sleep(59)
        assert pool.stats().idle == 3
        await asyncio.sleep(1.5)
        assert pool.stats().idle == 1  # min_size stays
        await asyncio.sleep(900)
        assert peer.connects == 3
        await asyncio.sleep(40)
        assert pool.stats().idle == 1  # the one that was too old has been replaced
        assert peer.connects == 4
        check_invariants(pool, peer)


@virtual
async def test_what_is_too_old_is_not_given_to_the_next() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=1, max_lifetime=10) as pool:
        old = await pool.get()
        waiting = asyncio.create_task(pool.get())
        await asyncio.sleep(11)
        await pool.release(old)
        assert (await waiting).number == 1
        await pool.release(peer.connections[1])


@virtual
async def test_maintenance_sleeps_until_something_is_due() -> None:
    peer = Peer()
    loop = asyncio.get_running_loop()
    calls = 0
    once = loop._run_once  # type: ignore[attr-defined]

    def counted() -> None:
        nonlocal calls
        calls += 1
        once()

    async with Pool(peer.connect, min_size=3, max_idle=3600, max_lifetime=86400) as pool:
        async with pool.acquire():
            pass
        await turns()
        loop._run_once = counted  # type: ignore[attr-defined]
        await asyncio.sleep(80_000)
        assert calls <= 10
        assert pool.stats().idle == 3


@virtual
async def test_min_size_is_kept_with_back_off(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    async with Pool(peer.connect, min_size=2) as pool:
        peer.fail = [OSError("down") for _ in range(5)]
        a, b = await pool.get(), await pool.get()
        began = now()
        await pool.release(a, broken=True)
        await pool.release(b, broken=True)
        with caplog.at_level(logging.WARNING, "flowcoro.net"):
            await asyncio.sleep(3)
        assert not peer.fail
        assert pool.stats().failures == 5
        assert "next try in 0.1 s: OSError: down" in caplog.text
        assert "next try in 1.6 s" in caplog.text
        await asyncio.sleep(1)
        assert pool.stats().idle == 2
        assert now() == pytest.approx(began + 4)


@virtual
async def test_opening_fails_clearly() -> None:
    peer = Peer()
    peer.fail = [OSError("down")]
    pool = Pool(peer.connect, min_size=3, name="shop")
    with pytest.raises(OSError, match="down") as caught:
        async with pool:
            raise AssertionError("not to be reached")
    assert caught.value.__notes__ == ["shop: when it opened min_size=3"]
    assert peer.open == 0
    with pytest.raises(anyio.ClosedResourceError, match="is not open"):
        await pool.get()
    with pytest.raises(RuntimeError, match="opened once"):
        await pool.__aenter__()


@virtual
async def test_closing_while_it_opens() -> None:
    peer = Peer()
    peer.delay = lambda step: 5.0 if step == "connect" else 0.0
    pool = Pool(peer.connect, min_size=2)
    opening = asyncio.create_task(pool.__aenter__())
    await turns()
    await pool.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await opening
    assert peer.open == 0


@virtual
async def test_a_pool_that_was_never_opened() -> None:
    pool = Pool(Peer().connect)
    with pytest.raises(anyio.ClosedResourceError, match=r"Peer\.connect is not open"):
        await pool.get()
    await pool.aclose()
    await pool.aclose()
    with pytest.raises(RuntimeError, match="opened once"):
        await pool.__aenter__()


@virtual
async def test_closing_waits_for_borrowers() -> None:
    peer = Peer()
    pool = Pool(peer.connect, max_size=2, drain_timeout=10)
    await pool.__aenter__()
    a, b = await pool.get(), await pool.get()
    waiting = asyncio.create_task(pool.get())
    await turns()
    closing = asyncio.create_task(pool.aclose())
    await turns()
    with pytest.raises(anyio.ClosedResourceError):
        await waiting
    with pytest.raises(anyio.ClosedResourceError):
        await pool.get()
    await pool.release(a)
    await asyncio.sleep(5)
    assert not closing.done()
    assert (a.closes, b.closes) == (1, 0)
    await pool.release(b)
    began = now()
    await closing
    assert now() - began < 1
    assert peer.open == 0


@virtual
async def test_closing_does_not_wait_for_ever() -> None:
    peer = Peer()
    async with Pool(peer.connect, drain_timeout=10) as pool:
        connection = await pool.get()
        began = now()
    assert now() == pytest.approx(began + 10)
    assert connection.closes == 1
    await pool.release(connection)  # its borrower comes late, and does no harm
    assert connection.closes == 1


@virtual
async def test_closing_bounds_closes_that_hang(caplog: pytest.LogCaptureFixture) -> None:
    async def close(connection: Connection) -> None:
        if connection.number == 0:
            raise OSError("reset")
        await asyncio.sleep(1000)

    peer = Peer()
    began = now()
    async with Pool(peer.connect, close=close, close_timeout=5) as pool:
        a, b = await pool.get(), await pool.get()
        await pool.release(a)
        await pool.release(b)
    assert now() == pytest.approx(began + 5)
    assert "closing a connection failed: OSError: reset" in caplog.text
    assert "did not close within 5 s" in caplog.text
    assert pool.stats().closed == 2


@virtual
async def test_what_connect_returns_at_the_end_is_closed() -> None:
    peer = Peer()

    async def stubborn() -> Connection:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(5)
        return Connection(peer, 0)

    closed: list[Connection] = []

    async def close(connection: Connection) -> None:
        closed.append(connection)

    async with Pool(stubborn, close=close) as pool:
        task = asyncio.create_task(pool.get())
        await turns()
    assert len(closed) == 1
    with pytest.raises(anyio.ClosedResourceError):
        await task


@virtual
async def test_closing_before_a_supply_has_begun() -> None:
    peer = Peer()
    async with Pool(peer.connect, check=peer.check, check_after=0) as pool:
        await pool.release(await pool.get())
        task = asyncio.create_task(pool.get())
        other = asyncio.create_task(pool.get())
        await asyncio.sleep(0)  # both have asked; neither check nor connect has had its turn
    assert peer.open == 0
    assert pool.stats().size == 0
    assert await asyncio.gather(task, other, return_exceptions=True)


@pytest.mark.parametrize("method", ["aclose", "async close", "close", "none"])
@virtual
async def test_closing_by_the_object_itself(method: str) -> None:
    closed = []

    class WithAclose:
        async def aclose(self) -> None:
            closed.append(1)

        def close(self) -> None:
            raise AssertionError("aclose comes first")

    class WithAsyncClose:
        async def close(self) -> None:
            closed.append(1)

    class WithClose:
        def close(self) -> None:
            closed.append(1)

    kinds = {
        "aclose": WithAclose,
        "async close": WithAsyncClose,
        "close": WithClose,
        "none": object,
    }

    async def connect() -> object:
        return kinds[method]()

    async with ConnectionPool(connect) as pool, pool.acquire():
        pass
    assert len(closed) == (method != "none")


@pytest.mark.parametrize(
    "options",
    [
        {"min_size": 3, "max_size": 2},
        {"max_size": 0},
        {"min_size": -1},
        {"max_idle": 0},
        {"max_lifetime": -1},
        {"acquire_timeout": -1},
        {"close_timeout": math.nan},
        {"max_waiters": -1},
    ],
)
def test_limits_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"size|seconds|max_waiters"):
        Pool(Peer().connect, **options)


@virtual
async def test_tasks_of_the_pool_are_in_nobodys_context() -> None:
    request = contextvars.ContextVar("request", default="none")
    seen = []
    peer = Peer()

    async def connect() -> Connection:
        seen.append(request.get())
        return await peer.connect()

    async with Pool(connect) as pool:
        request.set("one")
        async with pool.acquire():
            pass
    assert seen == ["none"]


@virtual
async def test_with_anyio_scopes() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=1) as pool:
        held = await pool.get()
        with anyio.move_on_after(5) as scope:
            await pool.get()
        assert scope.cancelled_caught
        with anyio.CancelScope() as outer:
            outer.cancel()
            with anyio.CancelScope(shield=True):
                await pool.release(held)
                async with pool.acquire() as again:
                    assert again is held
    assert peer.open == 0


@virtual
async def test_closed_in_the_moment_of_being_served() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=1) as pool:
        held = await pool.get()
        first, second = (asyncio.create_task(pool.get()) for _ in range(2))
        await turns()
        await pool.release(held)
        pool._core.refuse()
        pool._core.discard_borrowed()
        for task in (first, second):
            with pytest.raises(anyio.ClosedResourceError):
                await task
    assert peer.open == 0


@virtual
async def test_served_and_due_at_the_same_time() -> None:
    peer = Peer()
    async with Pool(peer.connect, max_size=1) as pool:
        held = await pool.get()
        task = asyncio.create_task(pool.get(5))
        await turns()
        # What is due in one turn of the loop runs in it, one after the other.
        core, entry = pool._core, pool._core.entries[id(held)]
        asyncio.get_running_loop().call_at(now() + 5 - 1e-10, core.take_back, entry)
        assert await task is held
        assert pool.stats().timeouts == 0
        await pool.release(held)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has them")
@virtual
async def test_with_eager_tasks() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    made = []

    async def connect() -> object:  # awaits nothing: all is over when its task was made
        made.append(object())
        return made[-1]

    async def check(connection: object) -> bool:
        return connection is not made[0]

    async with ConnectionPool(connect, min_size=1, max_size=2, check=check, check_after=0) as pool:

        async def use() -> None:
            async with pool.acquire():
                await asyncio.sleep(0)

        await asyncio.gather(*(use() for _ in range(10)))
        assert pool.stats().acquired == 10
        assert pool.stats().check_failures == 1

    async def fail() -> object:
        raise OSError("down")

    async with ConnectionPool(fail, max_size=1) as failing:
        results = await asyncio.gather(
            *(failing.get() for _ in range(2000)), return_exceptions=True
        )
        assert all(isinstance(each, OSError) for each in results)


@pytest.mark.parametrize("backend", ["asyncio", *reactor.available()])
def test_on_every_loop(backend: str) -> None:
    async def main() -> None:
        peer = Peer()
        async with Pool(peer.connect, max_size=2, min_size=1, check=peer.check) as pool:
            order: list[int] = []

            async def use(number: int) -> None:
                async with pool.acquire():
                    order.append(number)
                    await asyncio.sleep(0)

            await asyncio.gather(*(use(number) for number in range(20)))
            assert order == list(range(20))
            check_invariants(pool, peer)
        assert peer.open == 0

    run_on(backend, main())


@pytest.mark.parametrize("backend", ["asyncio", *reactor.available()])
def test_over_tcp(backend: str) -> None:
    async def healthy(connection: TcpClient) -> bool:
        await connection.send(b"?")
        return await connection.receive() == b"?"

    async def main() -> None:
        async with echo_server() as (host, port), FaultProxy((host, port)) as proxy:

            async def connect() -> TcpClient:
                return await TcpClient.connect(*proxy.address)

            async with ConnectionPool(connect, max_size=3, check=healthy, check_after=0) as pool:

                async def ask(number: int) -> None:
                    question = b"question %d" % number
                    async with pool.acquire() as connection:
                        await connection.send(question)
                        assert await connection.receive() == question

                together = asyncio.Barrier(3)

                async def hold() -> None:
                    async with pool.acquire():
                        await together.wait()

                await asyncio.gather(hold(), hold(), hold())
                await asyncio.gather(*(ask(number) for number in range(30)))
                assert pool.stats().opened == 3
                assert await proxy.drop_all(reset=True) == 3
                await asyncio.gather(*(ask(number) for number in range(30)))
                assert pool.stats().check_failures == 3

    run_on(backend, main())
