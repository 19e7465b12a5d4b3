"""Agents' identities: each agent's own key, and the delegate by which its node may speak for it.

An agent's key comes from a secret of its node's vault and the agent's name, so it costs nothing until it is first used
and is the same after a restart. Its *agent change*, the first and in version 1 the only one, is a change that names the
node too; the agent's identifier is the hash of it, so an agent belongs to one node for good.

An agent opens no handshakes. It signs a *delegate*, and the node it names shows that with the agent change inside its
own session. Another node that shows them is refused: the session proves who shows them, and both name the node.
"""

from hashlib import blake2b
from typing import Annotated, Final, Literal

import msgspec
from attrs import field, frozen

from autonomy_trio.errors import IdentityError
from autonomy_trio.trust.identity import ATTESTATION_LIFE_LIMIT, CHANGES_LIMIT, check_life
from autonomy_trio.trust.records import (
    KEY_BYTES,
    Digest,
    Identifier,
    Key,
    Seconds,
    Signed,
    SigningKey,
    decode_record,
    digest,
    format_identifier,
    sign_record,
    verify,
)

AGENT_CHANGE_BYTES_LIMIT: Final = 160
"""Most bytes of an agent change without its signature; it has three fields of 32 bytes and little else."""
DELEGATE_BYTES_LIMIT: Final = 128
"""Most bytes of a delegate without its signature; it has two fields of 32 bytes, a number and two times."""
DELEGATE_LIFE: Final = ATTESTATION_LIFE_LIMIT
"""Validity of the delegates made here, in seconds; longer ones are refused."""

AGENT_SEQ: Final = 0
"""The sequence number of every agent: their keys do not rotate in version 1."""

_AGENT_PURPOSE: Final = b"autonomy/1 agent"


class AgentChange(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The first change of an agent's identity: that of any identity, and the node it belongs to."""

    version: Literal[1]
    seq: Annotated[int, msgspec.Meta(ge=0, le=0)]
    previous: None
    key: Key
    next_key_hash: Digest
    node: Identifier


class DelegateRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What an agent signs so that its node may introduce it."""

    agent: Identifier
    node: Identifier
    node_seq: Annotated[int, msgspec.Meta(ge=0, lt=CHANGES_LIMIT)]
    not_before: Seconds
    expires: Seconds


_AGENT_CHANGE: Final = msgspec.msgpack.Decoder(AgentChange)
_DELEGATE: Final = msgspec.msgpack.Decoder(DelegateRecord)


@frozen
class AgentKey:
    """An agent's identity with its secret key, as its own node has it.

    Attributes:
        identifier: the agent's 32-byte identifier.
        change: the signed agent change.
        key: the key that signs for the agent.
        node: the 32-byte identifier of its node.
    """

    identifier: bytes
    change: Signed
    key: SigningKey = field(repr=False)
    node: bytes


@frozen
class Introduction:
    """What a node shows of one of its agents.

    Attributes:
        agent: the agent's 32-byte identifier.
        change: the signed agent change.
        delegate: the signed delegate.
    """

    agent: bytes
    change: Signed
    delegate: Signed


@frozen
class Delegate:
    """A verified delegate: an agent that a node may speak for.

    Attributes:
        agent: the agent's 32-byte identifier.
        key: the agent's Ed25519 public key.
        node: the 32-byte identifier of its node.
        node_seq: the node's sequence number, for which alone the delegate counts.
        not_before: Unix seconds from which it holds.
        expires: Unix seconds from which it no longer holds.
    """

    agent: bytes
    key: bytes
    node: bytes
    node_seq: int
    not_before: int
    expires: int


def derive_agent_key(secret: bytes, name: str, node: bytes) -> AgentKey:
    """Derive an agent's identity: a pure function of its arguments, by keyed BLAKE2b (RFC 7693).

    Args:
        secret: the 32-byte secret of a vault's agents.
        name: the agent's name on its node.
        node: the 32-byte identifier of the node.
    """
    key, following = (SigningKey(_derive_seed(secret, name, seq)) for seq in (0, 1))
    change = AgentChange(
        version=1,
        seq=0,
        previous=None,
        key=key.public,
        next_key_hash=digest("h-next", following.public),
        node=node,
    )
    signed = sign_record(key, "change", change)
    return AgentKey(digest("h-id", signed.body), signed, key, node)


def make_delegate(agent: AgentKey, node_seq: int, now: float) -> Signed:
    """Make the delegate by which an agent's node may introduce it, for a week from now.

    Args:
        agent: the agent's identity.
        node_seq: the current sequence number of its node.
        now: Unix seconds.
    """
    begins = int(now)
    record = DelegateRecord(agent.identifier, agent.node, node_seq, begins, begins + DELEGATE_LIFE)
    return sign_record(agent.key, "delegate", record)


def verify_delegate(change: Signed, delegate: Signed, *, node: bytes, node_seq: int, now: float) -> Delegate:
    """Verify an agent that a node introduces.

    Args:
        change: the agent change.
        delegate: the delegate.
        node: the identifier of the node that shows them, as its session has proven it.
        node_seq: the sequence number of that node, from the same session.
        now: Unix seconds.

    Raises:
        IdentityError: one of them is malformed, does not verify, is of another agent or node, or does not hold now.
    """
    first = decode_record(_AGENT_CHANGE, change.body, AGENT_CHANGE_BYTES_LIMIT, "an agent's change", IdentityError)
    record = decode_record(_DELEGATE, delegate.body, DELEGATE_BYTES_LIMIT, "an agent's delegate", IdentityError)
    agent = digest("h-id", change.body)
    name = format_identifier(agent)
    if record.agent != agent:
        raise IdentityError(f"the delegate shown with agent {name} is of {format_identifier(record.agent)}")
    if first.node != node or record.node != node:
        raise IdentityError(f"agent {name} is of another node than {format_identifier(node)}, which introduces it")
    if record.node_seq != node_seq:
        raise IdentityError(
            f"the delegate of agent {name} is for sequence {record.node_seq} of its node, which is at {node_seq}"
        )
    check_life(f"the delegate of agent {name}", record.not_before, record.expires, now)
    # The signatures last: they cost a thousand times what the comparisons do.
    if not verify(first.key, "change", change.body, change.signature):
        raise IdentityError(f"the change of agent {name} is not signed by the key it names")
    if not verify(first.key, "delegate", delegate.body, delegate.signature):
        raise IdentityError(f"the delegate of agent {name} is not signed by the agent")
    return Delegate(agent, first.key, node, node_seq, record.not_before, record.expires)


def _derive_seed(secret: bytes, name: str, seq: int) -> bytes:
    if len(secret) != KEY_BYTES:
        raise ValueError(f"a secret of agents has {KEY_BYTES} bytes, not {len(secret)}")
    return blake2b(
        seq.to_bytes(8, "big") + name.encode(), digest_size=KEY_BYTES, key=secret, person=_AGENT_PURPOSE
    ).digest()
