"""A secure messaging fabric for agents, in Python on trio.

An agent is a class with handlers; a node hosts agents; relays carry encrypted, signed envelopes between nodes. The
names below are what users import; `autonomy_trio.errors` has every exception.
"""

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.declare import Mailbox, agent, on
from autonomy_trio.actors.delivery import Sender
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.fabric.node import Node, current_node, open_node
from autonomy_trio.messages import Request, message

__all__ = [
    "AgentRef",
    "Context",
    "Mailbox",
    "Node",
    "Request",
    "Sender",
    "agent",
    "current_node",
    "message",
    "on",
    "open_node",
]
