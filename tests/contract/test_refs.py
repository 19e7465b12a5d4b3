"""What a ref in a message promises wherever it goes."""

from tests.support.contract import Add, Call, Notes, Reader, Whoami
from tests.support.settings import Open, until


async def test_an_agent_answers_by_a_ref_that_came_in_a_message(opening: Open) -> None:
    async with opening(users=[Reader]) as setting:
        reader = setting.user.ref("reader", Reader)
        await setting.ref().ask(Call(reader, "by your ref"))

        async def told() -> bool:
            return bool(await reader.ask(Notes()) == ["by your ref"])

        await until(told)


async def test_a_ref_comes_back_as_one_that_reaches_its_agent(opening: Open) -> None:
    async with opening() as setting:
        found = await setting.ref().ask(Whoami())
        assert await found.ask(Add(3)) == 3
        assert await setting.ref().ask(Add(3)) == 6, "it is the same agent"
