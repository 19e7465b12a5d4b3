"""Agents that let a model decide what they say and which tools they use: `ModelAgent`."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any, ClassVar, Final, TypeVar

import attrs
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.declare import agent, on
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.spec import spec_of
from autonomy_trio.annotations import field_names
from autonomy_trio.connect.models.answering import Answering
from autonomy_trio.connect.models.chat import Approve, Chat, ChatInParts, ChatPart, ChatReply
from autonomy_trio.connect.models.conversations import Conversation, Conversations
from autonomy_trio.connect.models.filling import fill
from autonomy_trio.connect.models.messages import (
    Complete,
    CompleteInParts,
    Completion,
    Kind,
    ModelFailed,
    Part,
    Said,
)
from autonomy_trio.connect.models.model import Model
from autonomy_trio.connect.models.remarking import reached_by
from autonomy_trio.connect.models.toolbox import Toolbox, ToolsOf
from autonomy_trio.connect.tools import Tool
from autonomy_trio.errors import AutonomyError, Denied, MailboxFull, MessageError, NotDelivered, Overloaded, ReplyError

_REASONS: Final[Sequence[tuple[type[Exception], tuple[Kind, str]]]] = (
    (ReplyError, ("server", "gave no answer: ask later")),
    (trio.TooSlowError, ("no answer", "did not answer in time: ask later")),
    (Overloaded, ("busy", "is busy: ask later")),
    (Denied, ("unreachable", "does not let this agent ask it: whoever runs it has to allow that")),
    (NotDelivered, ("unreachable", "is not there: whoever runs it has to start it")),
    (MessageError, ("too long", "was asked more than a message holds: say less")),
)
"""What is told of a model's agent that gave no answer."""
_LOST: Final[tuple[Kind, str]] = ("server", "was lost meanwhile: ask again")
"""What is told of one for every other reason."""

T = TypeVar("T")


def _conversations_of(agent: "ModelAgent") -> Conversations:
    return Conversations(agent.most_conversations, agent.most_entries, agent.most_bytes)


@agent(inherit=False)
class ModelAgent:
    """An agent whose answers a model writes: derive from it, and set what is below in the class.

    ::

        @agent(inherit=False)
        class Support(ModelAgent):
            model = "gpt"
            instructions = "You answer customers of a bicycle shop."
            tools = (Orders,)
            allow = 'principal.team == "support"'

    It answers `Chat` and `ChatInParts`, where there is no answer with `ModelFailed`. Handlers of its own can have the
    model `fill` a class. Give it ``concurrency=`` for several conversations at once.
    """

    __agent_patient__: ClassVar[bool] = True

    allow: ClassVar[str | None] = None
    """A Cedar condition on who may chat with it from another node; without one, nobody."""

    model: str | Model = attrs.field(default="model", kw_only=True)
    """The name or address of a `Model`'s agent, or a `Model`, which then is this agent's child."""
    instructions: str = attrs.field(default="", kw_only=True)
    """What the model is told before each conversation."""
    tools: Sequence[type | ToolsOf] = attrs.field(default=(), kw_only=True)
    """Agents that the model may ask, as this agent: classes, or what `ToolsOf` says of them."""
    approver: str | None = attrs.field(default=None, kw_only=True)
    """The name or address of an agent that is asked `Approve`."""
    most_turns: int = attrs.field(default=8, kw_only=True)
    """Times that the model is asked for one answer, because it called tools."""
    most_tokens: int | None = attrs.field(default=None, kw_only=True)
    """Tokens that the model may write at a time."""
    temperature: float | None = attrs.field(default=None, kw_only=True)
    """How much chance has a part in it."""
    tools_at_once: int = attrs.field(default=8, kw_only=True)
    """Tools that are called at a time for one answer."""
    model_patience: float = attrs.field(default=120.0, kw_only=True)
    """Seconds that the model has for each turn, where nobody waits less."""
    tool_patience: float = attrs.field(default=30.0, kw_only=True)
    """Seconds that each call of a tool has."""
    approval_patience: float = attrs.field(default=300.0, kw_only=True)
    """Seconds that a person has to approve a call."""
    most_conversations: int = attrs.field(default=1000, kw_only=True)
    """Conversations that are remembered; the one that was unused for longest goes first."""
    most_entries: int = attrs.field(default=100, kw_only=True)
    """Entries that are remembered of each conversation."""
    most_bytes: int = attrs.field(default=64 * 1024, kw_only=True)
    """Bytes that are remembered of each conversation; with the tools and instructions they have to fit a message."""

    _conversations: Conversations = attrs.field(
        init=False, repr=False, default=attrs.Factory(_conversations_of, takes_self=True)
    )
    _ref: AgentRef[Any] | None = attrs.field(init=False, repr=False, default=None)
    _toolbox: Toolbox | None = attrs.field(init=False, repr=False, default=None)

    def __init_subclass__(cls) -> None:
        """Take what a class sets without an annotation for the default of that field; put `allow` into force."""
        for name in set(field_names(ModelAgent).all) & vars(cls).keys() - cls.__annotations__.keys():
            cls.__annotations__[name] = ModelAgent.__annotations__[name]
        if "allow" in vars(cls):
            for method, message in (("chat", Chat), ("chat_in_parts", ChatInParts)):
                if method not in vars(cls):
                    setattr(cls, method, reached_by(getattr(cls, method), message, cls.allow, ModelFailed))
        super().__init_subclass__()

    def __attrs_post_init__(self) -> None:
        for each in self.tools:
            if not isinstance(each, ToolsOf):
                spec_of(each)

    @on(Chat, raises=ModelFailed)
    async def chat(self, message: Chat, context: Context) -> ChatReply:
        """Go on with a conversation."""
        conversation = self._conversations.find(context.sender.id, message.conversation)
        if conversation.is_taken:
            with suppress(MailboxFull):
                conversation.is_awaited = True
                context.stash()
            raise _taken(message.conversation)
        with _taking(conversation, context):
            async with aclosing(self._answer(message, conversation, context, in_parts=False)) as parts:
                return [part async for part in parts if isinstance(part, ChatReply)][-1]

    @on(ChatInParts, raises=ModelFailed)
    async def chat_in_parts(self, message: ChatInParts, context: Context) -> AsyncIterator[ChatPart]:
        """Go on with a conversation, in parts as they come."""
        conversation = self._conversations.find(context.sender.id, message.conversation)
        if conversation.is_taken:
            raise _taken(message.conversation)
        with _taking(conversation, context):
            async with aclosing(self._answer(message, conversation, context, in_parts=True)) as parts:
                async for part in parts:
                    yield part  # noqa: ASYNC119 - who reads it closes it

    async def fill(self, kind: type[T], said: str | Sequence[Said], context: Context) -> T:
        """Have the model say something as an object of an attrs class, with this agent's instructions; see `fill`.

        Raises:
            ModelFailed: it could not; list it in the handler's ``raises=``.
        """
        entries = (Said("user", said),) if isinstance(said, str) else tuple(said)
        with _explained(self._model(context).name, context), trio.fail_after(self.model_patience):
            return await fill(
                self._model(context),
                kind,
                (*self._told_before(), *entries),
                most_tokens=self.most_tokens,
                temperature=self.temperature,
            )

    async def approve(self, asked: Approve, context: Context) -> bool:
        """Say whether a tool that needs a person may be called; by default `approver` says it, without one nobody.

        A class may override this, and ask whoever it likes. What it raises counts as no.
        """
        if self.approver is None:
            return False
        answer: bool = await context.ref(self.approver).ask(asked)
        return answer

    def _answer(
        self, message: Chat | ChatInParts, conversation: Conversation, context: Context, *, in_parts: bool
    ) -> AsyncGenerator[ChatPart]:
        """Make one answer."""
        toolbox = self._tools(context)

        async def ask_person(tool: Tool, arguments: str) -> bool:
            asked = Approve(tool.name, arguments, context.sender.id, message.conversation)
            return await self._is_approved(asked, context)

        answering = Answering(
            conversation=conversation,
            ask=lambda said: self._ask((*self._told_before(), *said), toolbox, context, in_parts=in_parts),
            call=lambda call: toolbox.call(call, ask_person, self.tool_patience),
            most_turns=self.most_turns,
            at_once=self.tools_at_once,
        )
        return answering.parts(message.text)

    async def _ask(
        self, said: tuple[Said, ...], toolbox: Toolbox, context: Context, *, in_parts: bool
    ) -> AsyncGenerator[Part]:
        """Have the model go on with a conversation."""
        model = self._model(context)
        given = said, toolbox.offers, None, self.most_tokens, self.temperature
        with _explained(model.name, context):
            if not in_parts:
                with trio.fail_after(self.model_patience):
                    found: Completion = await model.ask(Complete(*given))
                yield found  # noqa: ASYNC119 - who reads it closes it
                return
            async with model.stream(CompleteInParts(*given)) as parts:
                async for part in parts:
                    yield part  # noqa: ASYNC119 - who reads it closes it

    async def _is_approved(self, asked: Approve, context: Context) -> bool:
        """Ask a person; whatever is no yes is a no."""
        answer: object = False
        with trio.move_on_after(self.approval_patience) as scope:
            try:
                answer = await self.approve(asked, context)
            except Exception as error:  # noqa: BLE001 - fence: a class's own way to ask a person
                context.log.warning("nobody could be asked to approve", tool=asked.tool, why=type(error).__name__)
        if scope.cancelled_caught:
            context.log.warning("nobody approved in time", tool=asked.tool)
        return answer is True

    def _told_before(self) -> tuple[Said, ...]:
        return (Said("system", self.instructions),) if self.instructions else ()

    def _model(self, context: Context) -> AgentRef[Any]:
        if self._ref is None:
            found = self.model
            self._ref = context.spawn(found) if isinstance(found, Model) else context.ref(found, Model)
        return self._ref

    def _tools(self, context: Context) -> Toolbox:
        if self._toolbox is None:
            self._toolbox = Toolbox.fill(self.tools, context.ref)
        return self._toolbox


@contextmanager
def _taking(conversation: Conversation, context: Context) -> Generator[None]:
    """Have a conversation for one answer; who waits for it comes next."""
    conversation.is_taken = True
    try:
        yield
    finally:
        conversation.is_taken = False
        if conversation.is_awaited:
            conversation.is_awaited = False
            context.unstash_all()


def _taken(conversation: str) -> ModelFailed:
    return ModelFailed("busy", f"an answer is being made in {conversation!r} already: ask when it has ended")


@contextmanager
def _explained(model: str, context: Context) -> Generator[None]:
    """Say in words for who asked, and in the log what exactly it was, why a model's agent gave no answer.

    Raises:
        ModelFailed: it gave none.
    """
    try:
        yield
    except ModelFailed:
        raise
    except (AutonomyError, trio.TooSlowError) as error:
        context.log.warning("the model was not asked", model=model, why=type(error).__name__, detail=str(error))
        kind, words = next((found for known, found in _REASONS if isinstance(error, known)), _LOST)
        raise ModelFailed(kind, f"the model {model!r} {words}") from None
