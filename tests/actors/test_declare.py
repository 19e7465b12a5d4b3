"""What an agent class may declare, and the sentence that refuses the rest when the class is created."""

import functools
import inspect
import math
import subprocess
import sys
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import FunctionType
from typing import Any, Literal, Protocol, cast

import attrs
import pytest
import trio
from attrs import frozen

from autonomy_trio import Context, Down, Mailbox, Request, agent, message, on
from autonomy_trio.actors.declare import snake_case
from autonomy_trio.actors.spec import Spec, spec_of
from autonomy_trio.errors import DeclarationError, PolicyError


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@frozen
class Reset(Request[None]):
    pass


@frozen
class Note:
    text: str


@frozen
class LoudNote(Note):
    pass


@frozen
class LoudestNote(LoudNote):
    pass


@attrs.define
class Loose:
    text: str


def handler_of(cls: type, kind: type) -> str | None:
    handler = spec_of(cls).handler_of(kind)
    return handler and handler.method


def declare(*, bases: tuple[type, ...] = (), **members: object) -> type:
    return agent(type("Shop", bases, members))


async def takes_add(self: object, message: Add) -> Total:
    await trio.lowlevel.checkpoint()
    return Total(message.amount)


def test_a_declaration_is_read_into_a_spec() -> None:
    @agent(mailbox=Mailbox(3), restart="permanent")
    class HTTPShop:
        prices: dict[str, int] = attrs.Factory(dict)

        @on(Add, allow="context.message.amount <= 100")
        async def add(self, message: Add) -> Total:
            return Total(message.amount)

        @on(Note)
        def note(self, message: Note, context: Context) -> None:
            pass

        async def on_start(self, context: Context) -> None:
            pass

    spec = spec_of(HTTPShop)
    assert (spec.agent, spec.name) == ("HTTPShop", "http_shop")
    assert (spec.mailbox, spec.restart) == (Mailbox(3), "permanent")
    assert (spec.on_start, spec.on_stop) == (True, False)
    add, note = spec.handlers[Add], spec.handlers[Note]
    assert (add.method, add.allow, add.takes_context) == ("add", "context.message.amount <= 100", False)
    assert (note.method, note.allow, note.takes_context) == ("note", None, True)
    assert HTTPShop({"tea": 3}).prices == {"tea": 3}


def test_an_own_init_is_respected() -> None:
    @agent
    class Shop:
        factor: int

        def __init__(self, factor: int) -> None:
            self.factor = 2 * factor

    assert Shop(3).factor == 6


def test_a_class_that_is_not_decorated_itself_is_no_agent() -> None:
    class Derived(declare()):  # type: ignore[misc]
        pass

    for cls in (Derived, int):
        with pytest.raises(DeclarationError, match=f"{cls.__name__} is not an agent: decorate the class with @agent"):
            spec_of(cls)


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("Counter", "counter"),
        ("HTTPServer", "http_server"),
        ("MyHTTPServer2", "my_http_server2"),
        ("A", "a"),
        ("ABTest", "ab_test"),
    ],
)
def test_snake_case(name: str, snake: str) -> None:
    assert snake_case(name) == snake


def marked(kind: object, function: Callable[..., object], allow: str | None = None) -> Callable[..., object]:
    """Mark a function, or a copy of one of this module, which is to stay as it is."""
    if isinstance(function, FunctionType) and globals().get(function.__name__) is function:
        function = FunctionType(function.__code__, globals(), function.__name__)
        function.__annotations__ = globals()[function.__name__].__annotations__
    return on(cast("type", kind), allow=allow)(function)


def request_for(reply: object) -> type:
    """Return a message class ``Ask`` that is replied to with `reply`."""
    return frozen(types.new_class("Ask", (Request[reply],)))


def generator(self: object, message: Note) -> Generator[int]:
    yield 1


async def async_generator(self: object, message: Note) -> AsyncGenerator[int]:
    await trio.lowlevel.checkpoint()
    yield 1


def wrong_message(self: object, message: Note) -> Total:
    raise NotImplementedError


def wrong_message_in_quotes(self: object, message: "Note") -> Total:
    raise NotImplementedError


def wrong_context(self: object, message: Add, context: int) -> Total:
    raise NotImplementedError


def wrong_context_in_quotes(self: object, message: Add, context: "Note") -> Total:
    raise NotImplementedError


def wrong_reply(self: object, message: Add) -> int:
    raise NotImplementedError


def wrong_reply_none(self: object, message: Add) -> None:
    raise NotImplementedError


def wrong_reply_in_quotes(self: object, message: Add) -> "int":
    raise NotImplementedError


def answers_reset(self: object, message: Reset) -> int:
    raise NotImplementedError


GENERATOR = "Shop.handle is a generator, but Note is no Stream: return the reply in place of yield"
PARAMETERS = "Shop.handle: a handler takes (self, message) or (self, message, context)"
MESSAGE = "Shop.handle is marked @on(Add) but annotates its message as Note: let them agree"
REPLY = "Shop.handle answers Add, a Request[Total]: annotate it '-> Total' and return one"
NOT_FROZEN = "is not a frozen attrs class: decorate it with @attrs.frozen"


@pytest.mark.parametrize(
    ("kind", "function", "sentence"),
    [
        (Note, generator, GENERATOR),
        (Note, async_generator, GENERATOR),
        (Note, lambda self: None, PARAMETERS),
        (Note, lambda: None, PARAMETERS),
        (Note, lambda self, message, context, more: None, PARAMETERS),
        (Note, lambda self, *messages: None, PARAMETERS),
        (Note, lambda self, *, message: None, PARAMETERS),
        (Add, wrong_message, MESSAGE),
        (Add, wrong_message_in_quotes, MESSAGE),
        (Add, wrong_context, "Shop.handle annotates its context as int: annotate it as Context"),
        (Add, wrong_context_in_quotes, "Shop.handle annotates its context as Note: annotate it as Context"),
        (Add, wrong_reply, REPLY),
        (Add, wrong_reply_none, REPLY),
        (Add, wrong_reply_in_quotes, REPLY),
        (Reset, answers_reset, "Shop.handle answers Reset, a Request[None]: annotate it '-> None' and return one"),
        (Loose, lambda self, message: None, f"Shop.handle: @on(Loose) {NOT_FROZEN}"),
        (int, lambda self, message: None, f"Shop.handle: @on(int) {NOT_FROZEN}"),
        (Note | Add, lambda self, message: None, f"Shop.handle: @on({__name__}.Note | {__name__}.Add) {NOT_FROZEN}"),
        (Note("x"), lambda self, message: None, f"Shop.handle: @on(Note(text='x')) {NOT_FROZEN}"),
        (
            Note,
            functools.partial(takes_add),
            "Shop.handle is marked with @on but is no method: a handler is def or async def with self and a message",
        ),
    ],
)
def test_a_wrong_handler_is_refused(kind: object, function: Callable[..., object], sentence: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        declare(handle=marked(kind, function))
    assert str(refused.value) == sentence


@pytest.mark.parametrize("wrapper", [property, classmethod])
def test_a_mark_above_a_property_or_classmethod_is_refused(wrapper: Callable[..., Any]) -> None:
    with pytest.raises(DeclarationError, match=r"@on\(Add\) marks <.*: a handler is def or async def with self"):
        marked(Add, wrapper(takes_add))


def test_a_mark_below_a_staticmethod_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Shop\.handle is marked with @on but is no method"):
        declare(handle=staticmethod(marked(Add, takes_add)))


def test_two_handlers_for_a_message_are_refused() -> None:
    with pytest.raises(DeclarationError, match="Shop has two handlers for Add, first and second: keep one"):
        declare(first=marked(Add, takes_add), second=marked(Add, lambda self, message: Total(1)))


@pytest.mark.parametrize("hook", ["on_start", "on_stop"])
@pytest.mark.parametrize(
    "function", [lambda self: None, lambda self, context, more: None, lambda self, *, context: None, async_generator, 3]
)
def test_a_hook_that_could_not_be_called_is_refused(hook: str, function: object) -> None:
    with pytest.raises(
        DeclarationError, match=rf"Shop\.{hook}: a hook is def or async def and takes \(self, context\)"
    ):
        declare(**{hook: function})


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, "64"])
def test_a_mailbox_holds_at_least_one_message(capacity: object) -> None:
    with pytest.raises(DeclarationError, match="a mailbox holds at least 1 message"):
        Mailbox(cast("int", capacity))


def test_an_agent_inherits_what_its_node_can_prove_unless_it_says_otherwise() -> None:
    assert spec_of(agent(type("Shop", (), {}))).inherit
    assert not spec_of(agent(inherit=False)(type("Bridge", (), {}))).inherit


@pytest.mark.parametrize("mailbox", [0, 5, "5"])
def test_a_mailbox_that_is_none_is_refused(mailbox: object) -> None:
    with pytest.raises(DeclarationError, match=f"Desk: mailbox={mailbox!r} is no Mailbox: write mailbox=Mailbox"):

        @agent(mailbox=cast("Mailbox", mailbox))
        class Desk:
            pass


@pytest.mark.parametrize("idle_after", ["60", None, -1, math.nan])
def test_a_time_to_rest_that_is_none_is_refused(idle_after: Any) -> None:  # noqa: ANN401
    with pytest.raises(DeclarationError, match=f"Desk: idle_after={idle_after!r}: give seconds, 0 or more"):

        @agent(idle_after=idle_after)
        class Desk:
            pass


def test_an_unknown_restart_is_refused() -> None:
    restart: Any = "always"
    with pytest.raises(DeclarationError, match="Shop: restart='always' is none of permanent, transient, temporary"):
        agent(restart=restart)(type("Shop", (), {}))


def test_a_policy_on_a_message_that_no_other_node_sends_is_refused() -> None:
    def down(self: object, message: Down) -> None:
        del self, message

    with pytest.raises(
        DeclarationError, match=r"^Shop\.handle: allow='true' can never matter, .* a Down: leave it out"
    ):
        declare(handle=on(Down, allow="true")(down))


@pytest.mark.parametrize(
    ("allow", "part"),
    [("principal.team ==", ""), ("context.message.amonut <= 1", "amonut")],
)
def test_a_policy_that_cannot_be_right_is_refused_with_its_handler(allow: str, part: str) -> None:
    with pytest.raises(PolicyError, match=rf"^Shop\.handle: .*{part}"):
        declare(handle=marked(Add, takes_add, allow=allow))


def test_annotations_that_cannot_be_resolved_are_left_alone() -> None:
    @frozen
    class Local(Request[int]):
        pass

    def handle(self: object, message: "Local") -> "Nowhere":  # type: ignore[name-defined] # noqa: F821
        return 3

    assert handler_of(declare(handle=marked(Local, handle)), Local) == "handle"


def test_an_annotation_may_name_a_base_of_the_message_or_any() -> None:
    def takes_note(self: object, message: Note) -> None:
        raise NotImplementedError

    def takes_any(self: object, message: Any):  # noqa: ANN202, ANN401 - the point of it
        raise NotImplementedError

    assert handler_of(declare(handle=marked(LoudNote, takes_note)), LoudNote) == "handle"
    assert handler_of(declare(handle=marked(Note, takes_any)), Note) == "handle"


class HasDeadline(Protocol):
    deadline: float


@pytest.mark.parametrize("annotation", [Context, "Context", object, Any, HasDeadline, Context | None, "Unknown"])
def test_an_annotation_of_the_context_may_be_what_a_context_is(annotation: object) -> None:
    def handle(self: object, message: Note, context: object) -> None:
        raise NotImplementedError

    handle.__annotations__["context"] = annotation
    assert handler_of(declare(handle=marked(Note, handle)), Note) == "handle"


def test_a_decorated_handler_is_judged_by_what_it_wraps() -> None:
    def traced(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(function)
        async def wrapper(*args: object) -> object:
            return await function(*args)

        return wrapper

    assert handler_of(declare(handle=marked(Add, traced(takes_add))), Add) == "handle"
    assert handler_of(declare(handle=traced(marked(Add, takes_add))), Add) == "handle"  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="annotates its message as Note"):
        declare(handle=marked(Add, traced(wrong_message_in_quotes)))  # type: ignore[arg-type]


def test_one_method_may_handle_several_messages() -> None:
    cls = declare(handle=marked(Note, marked(Total, lambda self, message: None)))
    assert handler_of(cls, Note) == handler_of(cls, Total) == "handle"


class Parent:
    @on(Add, allow='principal.team == "payments"')
    async def add(self, message: Add) -> Total:
        return Total(1)

    @on(Note)
    def note(self, message: Note) -> None:
        pass


def test_handlers_are_inherited_and_an_override_keeps_its_parents_mark() -> None:
    @agent
    class Child(Parent):
        async def add(self, message: Add, context: Context) -> Total:
            return Total(2)

    handler = spec_of(Child).handlers[Add]
    assert handler.allow == 'principal.team == "payments"'
    assert handler.function is inspect.getattr_static(Child, "add")
    assert handler.takes_context
    assert spec_of(Child).handlers[Note].method == "note"


def test_an_override_with_a_mark_of_its_own_replaces_its_parents() -> None:
    @agent
    class Child(Parent):
        @on(Add)
        async def add(self, message: Add) -> Total:
            return Total(2)

    @agent
    class Other(Parent):
        @on(Total)
        def note(self, message: Total) -> None:
            pass

    assert spec_of(Child).handlers[Add].allow is None
    assert set(spec_of(Other).handlers) == {Add, Total}


def test_an_override_that_is_no_method_or_disagrees_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Shop\.add is marked with @on but is no method"):
        declare(bases=(Parent,), add=None)
    with pytest.raises(DeclarationError, match=r"Shop\.add is marked @on\(Add\) but annotates its message as Note"):
        declare(bases=(Parent,), add=wrong_message)


def test_a_child_that_handles_its_parents_message_elsewhere_is_refused() -> None:
    with pytest.raises(DeclarationError, match="Shop has two handlers for Add, add and more: keep one"):
        declare(bases=(Parent,), more=marked(Add, takes_add))


def test_a_handler_takes_subclasses_and_the_most_derived_wins() -> None:
    cls = declare(
        quiet=marked(Note, lambda self, message: None),
        loud=marked(LoudNote, lambda self, message: None, allow="true"),
    )
    assert handler_of(cls, Note) == "quiet"
    assert handler_of(cls, LoudNote) == handler_of(cls, LoudestNote) == "loud"
    assert handler_of(cls, Total) is None
    table = spec_of(cls).wire_table()
    assert {name: (kind, handler.method, handler.allow) for name, (kind, handler) in table.items()} == {
        "Note": (Note, "quiet", None),
        "LoudNote": (LoudNote, "loud", "true"),
        "LoudestNote": (LoudestNote, "loud", "true"),
    }


def test_two_messages_of_one_wire_name_are_refused_to_the_wire() -> None:
    @frozen
    class Base:
        pass

    @message(name="Other")
    @frozen
    class First(Base):
        pass

    cls = declare(handle=marked(Base, lambda self, message: None))
    assert set(spec_of(cls).wire_table()) == {"Base", "Other"}

    @message(name="Other")
    @frozen
    class Second(Base):
        pass

    with pytest.raises(
        DeclarationError, match=r"Shop takes two messages with the wire name 'Other': give one another name"
    ):
        spec_of(cls).wire_table()
    assert Second is not First


def test_a_subclass_that_is_no_message_is_not_on_the_wire() -> None:
    @frozen
    class Base:
        pass

    class Plain(Base):
        def __setattr__(self, name: str, value: object) -> None:
            raise NotImplementedError

    cls = declare(handle=marked(Base, lambda self, message: None))
    assert spec_of(cls).wire_table()["Base"][0] is Base
    assert handler_of(cls, Plain) == "handle"


@pytest.mark.parametrize(
    ("reply", "right", "wrong"),
    [
        (int, 3, "3"),
        (None, None, 3),
        (float, 3, "3"),
        (list[int], [1], (1,)),
        (Total, Total(1), 1),
        (Total | None, None, 1),
        (int | list[str], ["a"], "a"),
        (dict[str, int], {}, []),
    ],
)
def test_a_reply_is_of_the_declared_class(reply: object, right: object, wrong: object) -> None:
    request = request_for(reply)
    handler = spec_of(declare(handle=marked(request, lambda self, message: None))).handlers[request]
    handler.check_reply(right)
    with pytest.raises(
        TypeError, match=rf"handle returned a {type(wrong).__name__} for Ask, which is replied to with a"
    ):
        handler.check_reply(wrong)


@pytest.mark.parametrize("reply", [Any, Literal["a"], Literal["a"] | None])
def test_a_reply_whose_type_is_no_class_is_not_checked_here(reply: object) -> None:
    request = request_for(reply)
    handler = spec_of(declare(handle=marked(request, lambda self, message: None))).handlers[request]
    handler.check_reply(object())


def test_a_spec_is_equal_to_itself_alone() -> None:
    first, second = spec_of(declare()), spec_of(declare())
    assert first != second
    assert isinstance(first, Spec)
    assert len({first, second}) == 2


DECLARES_ONLY = """
import socket, sys, threading
import trio.lowlevel

def refuse(event, args):
    if event.startswith("socket."):
        raise SystemExit(f"{event} while declaring")

sys.addaudithook(refuse)
import autonomy_trio.trust.vault
made = []
for name in ("in_memory", "open"):
    setattr(autonomy_trio.trust.vault.Vault, name, classmethod(lambda *args: made.append(name)))
import nacl.utils
nacl.utils.random = lambda size=32: made.append("random")

from attrs import frozen
from autonomy_trio import agent, on

@frozen
class Note:
    text: str

@agent
class Notebook:
    @on(Note, allow='principal.team == "payments"')
    async def note(self, message: Note) -> None:
        pass

assert not made, made
assert threading.active_count() == 1
assert not trio.lowlevel.in_trio_run()
print("declared")
"""


def test_declaring_makes_no_key_opens_no_socket_and_starts_no_task() -> None:
    done = subprocess.run([sys.executable, "-c", DECLARES_ONLY], capture_output=True, text=True, check=False)
    assert done.stdout == "declared\n", done.stderr
