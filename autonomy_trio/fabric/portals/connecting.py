"""The agent that an outlet is to other nodes, what it is asked, and the policy that lets somebody ask it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import cedarpy

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.declare import agent, on
from autonomy_trio.actors.delivery import Sender
from autonomy_trio.actors.spec import Mailbox
from autonomy_trio.errors import ReplyError
from autonomy_trio.messages import Request
from autonomy_trio.trust.allow import check_allow, parse_allow, permit, policy_set_json
from autonomy_trio.trust.whole import WholePolicy, read_policies

CONNECTING: Final = 16
"""Connections to a target that are begun at once; who comes then waits, as messages do."""


@attrs.frozen
class Connect(Request[None]):
    """Open a stream through an outlet."""

    stream: int
    """The opener's number for it."""


@attrs.frozen
class Unreachable(ReplyError):
    """The target of the outlet does not answer."""

    why: str


@attrs.frozen
class Full(ReplyError):
    """There is no room for one stream more."""

    why: str


@agent(concurrency=CONNECTING, mailbox=Mailbox(4 * CONNECTING))
class Outlet:
    """Lets streams leave to what listens at an address of its node."""

    opens: Callable[[int, Sender], Awaitable[None]]

    @on(Connect, raises=(Unreachable, Full))
    async def connect(self, message: Connect, context: Context) -> None:
        """Open a stream to the target."""
        await self.opens(message.stream, context.sender)


def policies_of(name: str, allow: str | None) -> Sequence[WholePolicy]:
    """Return what lets others use an outlet.

    All outlets are of one agent class, of which policies can speak. So the condition of one is no handler's: it is a
    policy about that one, made of it as those of handlers are.

    Args:
        name: the outlet's.
        allow: the condition; None where it has none.

    Raises:
        PolicyError: the condition does not parse, or names a field that `Connect` does not have.
    """
    if allow is None:
        return ()
    place = f"allow= of the outlet {name}"
    check_allow(allow, Connect)
    permitted = permit(parse_allow(allow, place).conjuncts, (Connect.__name__,), Outlet.__name__)
    scoped = {**permitted, "resource": {"op": "==", "entity": {"type": Outlet.__name__, "id": name}}}
    return read_policies(cedarpy.policies_from_json_str(policy_set_json({place: scoped})), place)
