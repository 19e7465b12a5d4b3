"""What a watch promises wherever the agent is: one `Down`, once the agent has ended for good."""

import pytest

from autonomy_trio import pool
from autonomy_trio.errors import HandlerFailed
from tests.support.contract import Add, Broken, See, Seen, Service, Watcher
from tests.support.settings import Open, Setting, until


async def seen(setting: Setting, *reasons: str) -> None:
    """Wait until the watcher has been told these, and no more."""
    watcher = setting.user.ref("watcher", Watcher)

    async def told() -> bool:
        return len(await watcher.ask(Seen())) >= len(reasons)

    await until(told)
    await setting.ref("other").ask(Add(1))  # what was sent before this would have come by now
    assert await watcher.ask(Seen()) == list(reasons)


async def see(setting: Setting, name: str = "service", *, end: bool = False) -> None:
    await setting.user.ref("watcher", Watcher).ask(See(setting.ref(name), end))
    await setting.ref("other").ask(Add(1))  # the watch is there before what comes now


async def test_a_watcher_is_told_once_that_an_agent_was_stopped(opening: Open) -> None:
    async with opening(users=[Watcher]) as setting:
        setting.server.spawn(Service, "other")
        await see(setting)
        await see(setting)
        setting.server.ref("service").stop()
        await seen(setting, "stopped")
        await see(setting)
        await seen(setting, "stopped", "unknown agent")


async def test_a_restart_is_no_end_and_too_many_failures_are(opening: Open) -> None:
    async with opening(users=[Watcher]) as setting:
        setting.server.spawn(Service, "other")
        await see(setting)
        with pytest.raises(HandlerFailed):
            await setting.ref().ask(Broken())
        assert await setting.ref().ask(Add(1)) == 1
        await seen(setting)
        for _ in range(3):
            with pytest.raises(HandlerFailed):
                await setting.ref().ask(Broken())
        await seen(setting, "gave up")


async def test_an_agent_that_is_not_there_is_down_at_once(opening: Open) -> None:
    async with opening(users=[Watcher]) as setting:
        setting.server.spawn(Service, "other")
        await see(setting, "nobody")
        await seen(setting, "unknown agent")


async def test_a_watch_that_was_ended_tells_nothing(opening: Open) -> None:
    async with opening(users=[Watcher]) as setting:
        setting.server.spawn(Service, "other")
        await see(setting)
        await see(setting, end=True)
        setting.server.ref("service").stop()
        await seen(setting)


async def test_a_pool_is_down_when_its_last_agent_is(opening: Open) -> None:
    async with opening([pool(Service, 2)], users=[Watcher]) as setting:
        setting.server.spawn(Service, "other")
        await see(setting)
        setting.server._runtime.ref("service/0").stop()
        await setting.server._runtime.ref("service/0").stopped()
        await seen(setting)
        setting.server._runtime.ref("service/1").stop()
        await seen(setting, "stopped")
