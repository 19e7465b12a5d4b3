"""A model's text as an object of a class: held to its schema by the vendor, and read strictly here."""

import json
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.connect.models.messages import Complete, Completion, ModelFailed, Said, as_conversation
from autonomy_trio.connect.values import from_json
from autonomy_trio.errors import MessageError
from autonomy_trio.messages import message_schema

MOST_FILLS: Final = 2
"""Times that a model is asked for one object."""

T = TypeVar("T")


async def fill(
    model: AgentRef[Any],
    kind: type[T],
    said: str | Sequence[Said],
    *,
    most_tokens: int | None = None,
    temperature: float | None = None,
) -> T:
    """Have a model say something as an object of an attrs class.

    The vendor holds the model to the class's JSON schema where it can. A text that does not fit all the same is shown
    to the model once, with what is wrong with it.

    Args:
        model: a ref to a `Model`, here or on another node.
        kind: a frozen attrs class, of types that a message can carry.
        said: the conversation so far; a text alone is what a user said.
        most_tokens: as `Complete`.
        temperature: as `Complete`.

    Raises:
        ModelFailed: the model gave no answer, or the second one does not fit either: a ``misfit``.
        DeclarationError: `kind` cannot be described by a schema.
        DeliveryError: as `AgentRef.ask`.

    On cancellation the HTTP request ends.
    """
    schema, conversation = message_schema(kind), as_conversation(said)
    why = ""
    for _ in range(MOST_FILLS):
        found = await model.ask(Complete(conversation, (), schema, most_tokens, temperature))
        try:
            return _read(found, kind)
        except MessageError as error:
            why = str(error)
        mend = f"That cannot be used: {why}. Answer with JSON alone, which fits this schema:\n{json.dumps(schema)}"
        conversation = (*conversation, Said("assistant", found.text), Said("user", mend))
    raise ModelFailed("misfit", f"what the model wrote is no {kind.__name__}, twice: {why}")


def _read(found: Completion, kind: type[T]) -> T:
    """Read a model's text strictly.

    Raises:
        MessageError: it does not fit.
        ModelFailed: there is none.
    """
    if found.stopped == "refused":
        raise ModelFailed("refused", "the model refused to answer: ask for something else")
    try:
        value: object = json.loads(found.text)
    except (ValueError, RecursionError):
        ending = ", it stopped at the most_tokens that it may write" if found.stopped == "length" else ""
        raise MessageError(f"it is no JSON{ending}") from None
    read: T = from_json(value, kind)
    return read
