"""What a topic promises wherever its subscribers are."""

from tests.support.contract import Join, Note, Notes, Reader
from tests.support.settings import Open, Setting, until


async def join(setting: Setting, *, leave: bool = False) -> None:
    """Have the reader subscribe, or unsubscribe, and wait until that has arrived."""
    reader = setting.user.ref("reader", Reader)
    await reader.ask(Join(setting.topic("#news"), leave))
    runtime = setting.server._runtime

    async def arrived() -> bool:
        subscribers = runtime.topics._outside if setting.is_remote else runtime.topics._subscribers
        return ("#news" in subscribers) is not leave

    await until(arrived)


async def heard(setting: Setting, *texts: str) -> None:
    """Wait until the reader has heard these, and no more."""
    reader = setting.user.ref("reader", Reader)

    async def all_heard() -> bool:
        return len(await reader.ask(Notes())) >= len(texts)

    await until(all_heard)
    assert await reader.ask(Notes()) == list(texts)


async def test_what_is_published_reaches_its_subscribers_in_order(opening: Open) -> None:
    async with opening(users=[Reader]) as setting:
        setting.server.publish("#news", Note("before"))
        await join(setting)
        texts = [str(number) for number in range(20)]
        for text in texts:
            setting.server.publish("#news", Note(text))
        await heard(setting, *texts)


async def test_who_has_left_a_topic_hears_nothing(opening: Open) -> None:
    async with opening(users=[Reader]) as setting:
        await join(setting)
        setting.server.publish("#news", Note("first"))
        await heard(setting, "first")
        await join(setting, leave=True)
        setting.server.publish("#news", Note("second"))
        await join(setting)
        setting.server.publish("#news", Note("third"))
        await heard(setting, "first", "third")


async def test_a_subscriber_that_has_ended_is_forgotten(opening: Open) -> None:
    async with opening(users=[Reader]) as setting:
        await join(setting)
        setting.user.ref("reader").stop()

        async def forgotten() -> bool:
            topics = setting.server._runtime.topics
            return not topics._outside and not topics._subscribers

        await until(forgotten)
