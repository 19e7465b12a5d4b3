"""Agents whose answers a model writes, with tools that are agents."""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from attrs import frozen
from structlog.testing import capture_logs

from autonomy_trio import AgentRef, Context, Request, Stream, agent, on, open_node
from autonomy_trio.connect.models import (
    Approve,
    Chat,
    ChatInParts,
    ChatReply,
    Model,
    ModelAgent,
    ModelFailed,
    Text,
    ToolBegun,
    ToolEnded,
    ToolsOf,
    Usage,
)
from autonomy_trio.connect.models import toolbox as toolbox_module
from autonomy_trio.connect.models.toolbox import UNKNOWN
from autonomy_trio.errors import DeclarationError, Denied, ReplyError
from autonomy_trio.testing import open_test_fabric
from tests.support.models import Exchange, Scripted, hang, refuse, say, scripted, then_hang, whole


@frozen
class LookUp(Request[str]):
    """Say where an order is."""

    order: int


@frozen
class Refund(Request[None]):
    order: int


@frozen
class Wait(Request[None]):
    pass


@frozen
class Count(Stream[int]):
    to: int


@frozen
class Unknown(ReplyError):
    order: int


@agent(concurrency=8)
class Orders:
    refunded: list[int]
    running: int = 0
    most: int = 0

    @on(LookUp, allow='principal.team == "support"', raises=Unknown)
    def look_up(self, message: LookUp, context: Context) -> str:
        if message.order == 404:
            raise Unknown(404)
        if message.order == 500:
            raise RuntimeError("a secret of this node")
        return f"{message.order} is under way, says {context.sender.id}"

    @on(Refund)
    def refund(self, message: Refund) -> None:
        self.refunded.append(message.order)

    @on(Wait)
    async def wait(self, message: Wait) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await trio.sleep(0.1)
        self.running -= 1

    @on(Count)
    async def count(self, message: Count) -> AsyncIterator[int]:
        for number in range(message.to):
            yield number


@agent
class Boss:
    says: Any
    asked: list[Approve]

    @on(Approve)
    async def approve(self, message: Approve) -> bool:
        self.asked.append(message)
        if self.says is None:
            await trio.sleep_forever()
        return bool(self.says)


def desk(server: Scripted, **options: object) -> Callable[[], ModelAgent]:
    """A model agent with its model as its child."""

    @agent(concurrency=4, inherit=False)
    class Desk(ModelAgent):
        model = Model("openai:m", base_url=server.url)
        tools = (ToolsOf(Orders, approve=[Refund]),)

    return partial(Desk, **options)


async def chat(ref: AgentRef[Any], text: str = "Hi", conversation: str = "c") -> ChatReply:
    with trio.fail_after(20):
        reply = await ref.ask(Chat(conversation, text))
    assert isinstance(reply, ChatReply)
    return reply


async def told(
    *calls: tuple[str, str, object], agents: Sequence[Callable[[], object]] = (), **options: object
) -> list[str]:
    """Have a model make calls, and return what it is told of each."""
    async with scripted(say("", *calls), say("done")) as server:
        async with open_node([desk(server, **options), partial(Orders, []), *agents]) as node:
            await chat(node.ref("desk"))
        return [each["content"] for each in server.seen[1].body["messages"] if each["role"] == "tool"]


async def test_it_answers_with_its_instructions_and_remembers_the_conversation() -> None:
    async with (
        scripted(say("one"), say("two"), say("three")) as server,
        open_node([desk(server, instructions="Be brief."), partial(Orders, [])]) as node,
    ):
        assert await chat(node.ref("desk"), "first") == ChatReply("one", Usage(7, 3))
        await chat(node.ref("desk"), "second")
        await chat(node.ref("desk"), "else", conversation="another")
    system = {"role": "system", "content": "Be brief."}
    assert [[each["content"] for each in seen.body["messages"]] for seen in server.seen] == [
        ["Be brief.", "first"],
        ["Be brief.", "first", "one", "second"],
        ["Be brief.", "else"],
    ]
    assert all(seen.body["messages"][0] == system for seen in server.seen)


async def test_a_class_sets_what_it_is_with_or_without_annotations() -> None:
    @agent
    class Plain(ModelAgent):
        model = "gpt"
        instructions = "plain"

    @agent
    class Annotated(ModelAgent):
        model: str | Model = "gpt"
        instructions: str = "annotated"
        answered: int = 0

    @agent
    class Derived(Plain):
        instructions = "derived"

    agents: list[Any] = [Plain, Annotated, Derived]
    async with (
        scripted(say("hello")) as server,
        open_node([Model("openai:m", name="gpt", base_url=server.url), *agents]) as node,
    ):
        for name in ("plain", "annotated", "derived"):
            await chat(node.ref(name))
    assert [seen.body["messages"][0]["content"] for seen in server.seen] == ["plain", "annotated", "derived"]


async def test_a_tool_call_is_an_ask_as_this_agent_and_its_answer_goes_to_the_model() -> None:
    call = ("1", "look_up", {"order": 7})
    async with (
        scripted(say("", call), say("It is under way.")) as server,
        open_node([desk(server), partial(Orders, [])]) as node,
    ):
        assert await chat(node.ref("desk"), "Where is 7?") == ChatReply("It is under way.", Usage(14, 6))
    _, asked, answer = server.seen[1].body["messages"]
    assert asked["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"order": 7}'}
    assert answer == {"role": "tool", "content": "7 is under way, says desk", "tool_call_id": "1"}
    offered = {each["function"]["name"]: each["function"] for each in server.seen[0].body["tools"]}
    assert offered["look_up"]["description"] == "Say where an order is."
    assert offered["look_up"]["parameters"]["properties"] == {"order": {"type": "integer"}}


async def test_what_goes_wrong_with_a_call_is_told_to_the_model_in_words_and_not_to_the_user() -> None:
    with capture_logs():
        answers = await told(
            ("1", "look_up", {"order": 404}),
            ("2", "look_up", {"order": 500}),
            ("3", "look_up", {"order": "x"}),
            ("4", "look_up", "{"),
            ("5", "look_up", "[]"),
            ("6", "nothing", {}),
            ("7", "count", {"to": 2}),
            tools_at_once=1,  # a failure restarts the agent of the tools, and with it what it has under way
        )
    assert answers == [
        "The call failed: Unknown: order=404",
        "The call failed: orders failed: it may have done a part of it, and its log says why",
        "The arguments are wrong: expected int, got str @ LookUp.order",
        "The arguments are wrong: they are no JSON object",
        "The arguments are wrong: they are no JSON object",
        "There is no tool 'nothing'. There are: count, look_up, refund, wait.",
        '{"items": [0, 1], "complete": true}',
    ]


async def test_a_tool_that_takes_too_long_is_told_to_the_model() -> None:
    answers = await told(("1", "wait", {}), tool_patience=0.01)
    assert answers == ["There was no answer in 0.01 s: it may or may not be done."]


async def test_calls_run_in_parallel_up_to_a_limit() -> None:
    calls = [(str(number), "wait", {}) for number in range(6)]
    async with (
        scripted(say("", *calls), say("done")) as server,
        open_node([desk(server, tools_at_once=3), partial(Orders, [])]) as node,
    ):
        await chat(node.ref("desk"))
        orders = next(each.instance for each in node._runtime.cells() if each.name == "orders")
    assert orders.most == 3


async def test_more_calls_than_are_made_at_once_are_refused_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autonomy_trio.connect.models.answering.MOST_CALLS", 1)
    answers = await told(("1", "look_up", {"order": 1}), ("2", "look_up", {"order": 2}))
    assert answers == ["1 is under way, says desk", "Not done: at most 1 calls at once."]


async def test_a_long_answer_of_a_tool_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolbox_module, "MOST_TOLD", 10)
    assert await told(("1", "look_up", {"order": 7})) == ["7 is under… (the rest is left out)"]


async def test_a_tool_on_another_node_is_asked_under_its_policy_as_this_agent() -> None:
    call = ("1", "look_up", {"order": 7})
    with capture_logs():
        async with (
            scripted(say("", call), say("denied"), say("", call), say("done")) as server,
            open_test_fabric() as fabric,
            fabric.open_node([partial(Orders, [])]) as shop,
        ):
            address = shop.address("orders")
            tools = (ToolsOf(Orders, at=address, only=[LookUp]),)
            async with fabric.open_node([desk(server, tools=tools)]) as office:
                # What its node has proven is not the agent's: its words come from a model.
                office.add_credential(shop.issue(office.identifier, team="support"))
                await chat(office.ref("desk"))
                who = server.seen[1].body["messages"][-1]["content"]
                assert who == "The call failed: the policy of orders does not allow it"
                identifier = office.node.agent_identifier("desk")
                office.node.add_credential(shop.issue(identifier, team="support"), agent="desk")
                await chat(office.ref("desk"))
        assert server.seen[3].body["messages"][-1]["content"] == f"7 is under way, says {identifier}"


# A person.


async def test_a_call_that_needs_a_person_runs_only_once_it_is_approved() -> None:
    async with scripted(say("", ("1", "refund", {"order": 7})), say("done")) as server:
        orders, boss = Orders([]), Boss(says=True, asked=[])
        async with open_node([desk(server, approver="boss"), lambda: orders, lambda: boss]) as node:
            await chat(node.ref("desk"), conversation="of alice")
    assert boss.asked == [Approve("refund", '{"order": 7}', "node", "of alice")]
    assert orders.refunded == [7]


@pytest.mark.parametrize(
    ("boss", "options"),
    [
        ([partial(Boss, says=False, asked=[])], {"approver": "boss"}),
        ([partial(Boss, says=None, asked=[])], {"approver": "boss", "approval_patience": 0.05}),
        ([], {"approver": "nobody"}),
        ([], {}),
    ],
    ids=["denied", "too late", "not there", "nobody named"],
)
async def test_a_call_that_is_not_approved_does_not_run_and_the_model_is_told(
    boss: list[Any], options: dict[str, Any]
) -> None:
    orders = Orders([])
    async with scripted(say("", ("1", "refund", {"order": 7})), say("done")) as server:
        with capture_logs():
            async with open_node([desk(server, **options), lambda: orders, *boss]) as node:
                await chat(node.ref("desk"))
    assert server.seen[1].body["messages"][-1]["content"].startswith("This was not approved, so it was not done.")
    assert orders.refunded == []


async def test_a_class_can_ask_a_person_in_its_own_way_and_what_that_raises_counts_as_no() -> None:
    answers: list[Any] = [True, "yes", ValueError("no terminal")]

    @agent
    class Own(ModelAgent):
        tools = (ToolsOf(Orders, approve=[Refund]),)

        async def approve(self, asked: Approve, context: Context) -> bool:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[no-any-return]

    orders = Orders([])
    calls = [(str(number), "refund", {"order": number}) for number in range(3)]
    async with scripted(say("", *calls), say("done")) as server:
        model = Model("openai:m", base_url=server.url)
        with capture_logs():
            async with open_node([partial(Own, model=model, tools_at_once=1), lambda: orders]) as node:
                await chat(node.ref("own"))
    assert len(orders.refunded) == 1, "only True is a yes"


async def test_arguments_that_are_wrong_are_shown_to_no_person() -> None:
    boss = Boss(says=True, asked=[])
    answers = await told(("1", "refund", {"order": "x"}), agents=[lambda: boss], approver="boss")
    assert answers == ["The arguments are wrong: expected int, got str @ Refund.order"]
    assert boss.asked == []


# Parts.


async def test_a_stream_brings_text_calls_their_answers_and_the_reply() -> None:
    async with (
        scripted(say("Let me", ("1", "look_up", {"order": 7})), say("It is")) as server,
        open_node([desk(server), partial(Orders, [])]) as node,
    ):
        async with node.ref("desk").stream(ChatInParts("c", "Where is 7?")) as stream:
            parts = [part async for part in stream]
        assert await chat(node.ref("desk"), "Thanks") is not None
    assert parts == [
        Text("Let "),
        Text("me"),
        ToolBegun("1", "look_up", '{"order": 7}'),
        ToolEnded("1", "look_up", "7 is under way, says desk", failed=False),
        Text("It "),
        Text("is"),
        ChatReply("It is", Usage(14, 6)),
    ]
    assert len(server.seen[2].body["messages"]) == 5


async def test_leaving_a_stream_ends_the_models_request() -> None:
    async with scripted(then_hang("one"), say("two")) as server, open_node([desk(server), partial(Orders, [])]) as node:
        async with node.ref("desk").stream(ChatInParts("c", "Hi")) as parts:
            assert await anext(parts) == Text("one")
        with trio.fail_after(1):
            await server.seen[0].hung_up.wait()
        assert (await chat(node.ref("desk"))).text == "two"
    assert len(server.seen[1].body["messages"]) == 1, "what nobody has heard is not remembered"


async def test_a_chat_in_a_conversation_that_is_being_answered_waits_and_a_stream_is_refused() -> None:
    go_on = trio.Event()

    async def slowly(exchange: Exchange) -> None:
        await go_on.wait()
        await exchange.answer(whole("one"))

    async with (
        scripted(slowly, say("two")) as server,
        open_node([desk(server), partial(Orders, [])]) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(chat, node.ref("desk"), "first")
        await server.wait_seen(1)
        nursery.start_soon(chat, node.ref("desk"), "second")
        with pytest.raises(ModelFailed) as caught:
            async with node.ref("desk").stream(ChatInParts("c", "third")) as parts:
                await anext(parts)
        assert caught.value.kind == "busy"
        go_on.set()
    assert [each["content"] for each in server.seen[1].body["messages"]] == ["first", "one", "second"]


# What goes wrong.


async def test_a_model_that_only_calls_tools_is_stopped_after_its_turns() -> None:
    async with (
        scripted(say("", ("1", "look_up", {"order": 7}))) as server,
        open_node([desk(server, most_turns=3), partial(Orders, [])]) as node,
    ):
        with pytest.raises(ModelFailed) as caught:
            await chat(node.ref("desk"))
    assert caught.value.kind == "turns"
    assert len(server.seen) == 3


async def test_a_model_that_fails_leaves_the_conversation_as_it_was() -> None:
    async with (
        scripted(say("one"), refuse(401), say("two")) as server,
        open_node([desk(server), partial(Orders, [])]) as node,
    ):
        await chat(node.ref("desk"), "first")
        with pytest.raises(ModelFailed) as caught:
            await chat(node.ref("desk"), "lost")
        await chat(node.ref("desk"), "second")
    assert caught.value.kind == "key"
    assert [each["content"] for each in server.seen[2].body["messages"]] == ["first", "one", "second"]


async def test_calls_that_nobody_waited_for_are_remembered_so_that_they_are_not_made_again() -> None:
    calls = [("1", "look_up", {"order": 7}), ("2", "wait", {})]
    async with scripted(say("", *calls), say("done")) as server, open_node([desk(server), partial(Orders, [])]) as node:
        async with node.ref("desk").stream(ChatInParts("c", "Hi")) as parts:
            await anext(parts)
            await anext(parts)
            await trio.sleep(0.03)
        await chat(node.ref("desk"), "again")
    said = server.seen[1].body["messages"]
    assert [each["content"] for each in said if each["role"] == "tool"] == ["7 is under way, says desk", UNKNOWN]


@pytest.mark.parametrize(
    ("options", "kind"), [({"model": "nobody"}, "unreachable"), ({"model_patience": 0.05}, "no answer")]
)
async def test_a_model_that_does_not_answer_is_told_of_in_words(options: dict[str, Any], kind: str) -> None:
    with capture_logs():
        async with scripted(hang) as server, open_node([desk(server, **options), partial(Orders, [])]) as node:
            with pytest.raises(ModelFailed) as caught:
                await chat(node.ref("desk"))
    assert caught.value.kind == kind


async def test_a_model_of_another_node_that_denies_is_told_of_in_words() -> None:
    with capture_logs():
        async with (
            scripted(say("x")) as server,
            open_test_fabric() as fabric,
            fabric.open_node([Model("openai:m", base_url=server.url)]) as far,
            fabric.open_node([desk(server, model=far.address("m"), tools=())]) as office,
        ):
            with pytest.raises(ModelFailed, match="does not let this agent ask it"):
                await chat(office.ref("desk"))


async def test_who_chats_from_another_node_is_decided_by_its_policy() -> None:
    async with scripted(say("hello")) as server, open_test_fabric() as fabric:

        @agent
        class Open(ModelAgent):
            model = Model("openai:m", base_url=server.url)
            allow = 'principal.team == "support"'

        @agent
        class Closed(ModelAgent):
            model = Model("openai:m", base_url=server.url)

        async with fabric.open_node([Open, Closed]) as office, fabric.open_node() as alice:
            with pytest.raises(Denied):
                await chat(alice.ref(office.address("open"), Open))
            alice.add_credential(office.issue(alice.identifier, team="support"))
            assert (await chat(alice.ref(office.address("open"), Open))).text == "hello"
            async with alice.ref(office.address("open"), Open).stream(ChatInParts("c", "Hi")) as parts:
                assert await anext(parts) == Text("hello")
            with pytest.raises(Denied):
                await chat(alice.ref(office.address("closed"), Closed))


@frozen
class Ticket:
    urgent: bool


@frozen
class Sort(Request[Ticket]):
    text: str


async def test_a_handler_of_its_own_can_have_the_model_fill_a_class() -> None:
    @agent
    class Sorter(ModelAgent):
        instructions = "Sort."

        @on(Sort, raises=ModelFailed)
        async def sort(self, message: Sort, context: Context) -> Ticket:
            return await self.fill(Ticket, message.text, context)

    async with scripted(say('{"urgent": true}'), say("no")) as server:
        model = Model("openai:m", base_url=server.url)
        async with open_node([partial(Sorter, model=model)]) as node:
            assert await node.ref("sorter", Sorter).ask(Sort("Hurry")) == Ticket(urgent=True)
            with pytest.raises(ModelFailed) as caught:
                await node.ref("sorter", Sorter).ask(Sort("Hurry"))
    assert caught.value.kind == "misfit"
    assert [each["content"] for each in server.seen[0].body["messages"]] == ["Sort.", "Hurry"]


def test_tools_that_an_agent_does_not_have_are_refused() -> None:
    with pytest.raises(DeclarationError, match=r"ToolsOf\(Boss\): it has no tool LookUp"):
        ToolsOf(Boss, only=[LookUp])
    with pytest.raises(DeclarationError, match=r"ToolsOf\(Orders\): it has no tool Refund"):
        ToolsOf(Orders, only=[LookUp], approve=[Refund])
    with pytest.raises(DeclarationError, match="is not an agent"):
        ModelAgent(tools=(LookUp,))
