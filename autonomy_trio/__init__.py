"""A secure messaging fabric for agents, in Python on trio.

An agent is a class with handlers; a node hosts agents; relays carry encrypted, signed envelopes between nodes. The
names below are what users import; `autonomy_trio.errors` has every exception.
"""

from autonomy_trio.actors.belongings import Timer
from autonomy_trio.actors.context import Context
from autonomy_trio.actors.dead_letters import DeadLetter
from autonomy_trio.actors.declare import agent, on
from autonomy_trio.actors.delivery import Sender
from autonomy_trio.actors.refs import AgentRef, Down
from autonomy_trio.actors.spec import Mailbox
from autonomy_trio.actors.supervision import pool, supervise
from autonomy_trio.fabric.node import Node, current_node
from autonomy_trio.fabric.opening import App, open_node
from autonomy_trio.fabric.portals.inlets import Inlet
from autonomy_trio.fabric.portals.outlets import Outlet
from autonomy_trio.fabric.portals.streams import PortalStream
from autonomy_trio.messages import Request, Stream, message

__all__ = [
    "AgentRef",
    "App",
    "Context",
    "DeadLetter",
    "Down",
    "Inlet",
    "Mailbox",
    "Node",
    "Outlet",
    "PortalStream",
    "Request",
    "Sender",
    "Stream",
    "Timer",
    "agent",
    "current_node",
    "message",
    "on",
    "open_node",
    "pool",
    "supervise",
]
