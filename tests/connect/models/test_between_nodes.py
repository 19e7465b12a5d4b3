"""A model that one node has and others use, through a relay."""

import pytest
import trio

from autonomy_trio.connect.models import Complete, CompleteInParts, Model, ModelFailed, ReadStatistics, Text
from autonomy_trio.errors import Denied, ReplyError
from autonomy_trio.testing import open_test_fabric
from tests.support.models import Script, Scripted, hang, refuse, say, scripted, then_hang

ALLOW = 'principal.team == "support" && context.message has most_tokens && context.message.most_tokens <= 100'


def model(server: Scripted) -> Model:
    return Model("openai:m", name="gpt", base_url=server.url, allow=ALLOW, key_variable="TEST_KEY")


async def test_a_model_is_used_by_whom_its_policy_allows_and_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-stays-here")
    async with (
        scripted(say("hello")) as server,
        open_test_fabric() as fabric,
        fabric.open_node([model(server)]) as office,
        fabric.open_node() as alice,
        fabric.open_node() as bob,
    ):
        alice.add_credential(office.issue(alice.identifier, team="support"))
        bob.add_credential(office.issue(bob.identifier, team="sales"))
        gpt = alice.ref(office.address("gpt"), Model)
        assert (await gpt.ask(Complete("Hi", most_tokens=100))).text == "hello"
        with pytest.raises(Denied):
            await gpt.ask(Complete("Hi", most_tokens=101))
        with pytest.raises(Denied):
            await gpt.ask(ReadStatistics())
        with pytest.raises(Denied):
            await bob.ref(office.address("gpt"), Model).ask(Complete("Hi", most_tokens=100))
        with pytest.raises(Denied):
            async with bob.ref(office.address("gpt"), Model).stream(CompleteInParts("Hi", most_tokens=1)) as parts:
                await anext(parts)
    assert len(server.seen) == 1, "who is denied costs nothing"
    assert server.seen[0].headers["authorization"] == "Bearer sk-stays-here"


async def test_two_models_of_a_node_have_each_its_own_policy() -> None:
    async with (
        scripted(say("hello")) as server,
        open_test_fabric() as fabric,
        fabric.open_node(
            [
                Model("openai:small", base_url=server.url, allow="true"),
                Model("openai:large", base_url=server.url),
            ]
        ) as office,
        fabric.open_node() as alice,
    ):
        assert (await alice.ref(office.address("small"), Model).ask(Complete("Hi"))).text == "hello"
        with pytest.raises(Denied):
            await alice.ref(office.address("large"), Model).ask(Complete("Hi"))


async def test_a_stream_and_its_failures_cross_nodes() -> None:
    async with (
        scripted(say("one two"), refuse(401)) as server,
        open_test_fabric() as fabric,
        fabric.open_node([Model("openai:m", base_url=server.url, allow="true")]) as office,
        fabric.open_node() as alice,
    ):
        gpt = alice.ref(office.address("m"), Model)
        async with gpt.stream(CompleteInParts("Hi")) as parts:
            assert [part async for part in parts][:2] == [Text("one "), Text("two")]
        with pytest.raises(ModelFailed) as caught:
            await gpt.ask(Complete("Hi"))
        assert caught.value.kind == "key"
        with pytest.raises(ReplyError, match="ModelFailed"):
            await alice.ref(office.address("m")).ask(Complete("Hi"))


@pytest.mark.parametrize(
    "script",
    [
        say("x" * 200_000),
        say("", ("c1", "look", {"text": "\x01" * 40_000})),
        say("", *[(f"c{number}", "look", "{}") for number in range(10_000)]),
        say("y" * 200_000, ("c1", "look", {"text": "x" * 200_000})),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_fits_no_message_is_told_of_and_the_agent_lives_on(script: Script, streamed: bool) -> None:
    async with (
        scripted(script, say("fine")) as server,
        open_test_fabric() as fabric,
        fabric.open_node([Model("openai:m", base_url=server.url, allow="true")]) as office,
        fabric.open_node() as alice,
    ):
        gpt = alice.ref(office.address("m"), Model)

        async def read_all() -> None:
            async with gpt.stream(CompleteInParts("Hi")) as parts:
                async for _ in parts:
                    pass

        with pytest.raises(ModelFailed, match="a message has room for"):
            await (read_all() if streamed else gpt.ask(Complete("Hi")))
        assert (await gpt.ask(Complete("Hi"))).text == "fine"
        assert (await office.ref("m").ask(ReadStatistics())).answered == 1, "it is the same agent as before"


@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_on_another_node_ends_the_request_within_a_second(streamed: bool) -> None:
    async with (
        scripted(then_hang("one") if streamed else hang) as server,
        open_test_fabric() as fabric,
        fabric.open_node([Model("openai:m", base_url=server.url, allow="true")]) as office,
        fabric.open_node() as alice,
        trio.open_nursery() as nursery,
    ):
        gpt = alice.ref(office.address("m"), Model)

        async def stream() -> None:
            async with gpt.stream(CompleteInParts("Hi")) as parts:
                await anext(parts)
                await trio.sleep_forever()

        async def ask() -> None:
            await gpt.ask(Complete("Hi"))

        nursery.start_soon(stream if streamed else ask)
        exchange = await server.wait_seen(1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
        with trio.fail_after(1), trio.CancelScope(shield=True):
            await exchange.hung_up.wait()


async def test_the_deadline_of_who_asks_from_another_node_ends_the_request() -> None:
    async with (
        scripted(hang) as server,
        open_test_fabric() as fabric,
        fabric.open_node([Model("openai:m", base_url=server.url, allow="true")]) as office,
        fabric.open_node() as alice,
    ):
        with trio.move_on_after(0.5):
            await alice.ref(office.address("m"), Model).ask(Complete("Hi"))
        exchange = await server.wait_seen(1)
        with trio.fail_after(1):
            await exchange.hung_up.wait()
