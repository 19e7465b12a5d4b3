"""An asker's end of a reply: the first answer counts, and a cancelled asker withdraws."""

import pytest
import trio
import trio.testing

from autonomy_trio.actors.delivery import PendingReply


async def test_the_first_settlement_counts_whether_the_asker_waits_or_not() -> None:
    for waits in (False, True):
        reply = PendingReply()
        async with trio.open_nursery() as nursery:

            async def wait(reply: PendingReply) -> None:
                assert await reply.wait(lambda: pytest.fail("not withdrawn")) == 1

            if waits:
                nursery.start_soon(wait, reply)
                await trio.testing.wait_all_tasks_blocked()
            reply.answer(1)
            reply.fail(KeyError())
            if not waits:
                nursery.start_soon(wait, reply)


async def test_a_cancelled_asker_withdraws_once_and_a_late_reply_is_ignored(autojump_clock: object) -> None:
    reply, withdrawn = PendingReply(), list[float]()
    with trio.move_on_after(1):
        await reply.wait(lambda: withdrawn.append(trio.current_time()))
    reply.answer(1)
    assert withdrawn == [trio.current_time()]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_when_both_sides_see_the_deadline_the_askers_own_scope_decides(cancelled: bool) -> None:
    reply, late = PendingReply(), list[trio.TooSlowError]()

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            try:
                await reply.wait(lambda: pytest.fail("it was settled first"))
            except trio.TooSlowError as error:
                late.append(error)

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(ask, scope)
        await trio.testing.wait_all_tasks_blocked()
        reply.fail(trio.TooSlowError())
        if cancelled:
            scope.cancel()
    assert scope.cancelled_caught == cancelled
    assert len(late) == (not cancelled)
