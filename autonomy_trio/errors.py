"""Every exception a user of autonomy_trio can catch, grouped by whose fault it is.

Six families say where to look first:

* `UsageError`: you did it, in code, in a file or on the command line; the text names the thing and the mend.
* `DeliveryError`: a message did not do what its sender wanted; what happened to it differs by class.
* `ReplyError`: an answer that a protocol of yours foresees, and no failure.
* `TrustError`: a key, an identity or a credential that does not hold.
* `ProtocolError` and `LinkError`: a peer broke the protocol, or the way to it broke.
* `DatastoreError`: a database or a Redis server did not do what an agent wanted of it.
"""


class AutonomyError(Exception):
    """Base of every exception that autonomy_trio raises for its users."""


class UsageError(AutonomyError):
    """The call, file or command cannot be right; it would fail the same way again. Mend what the text names."""


class DeclarationError(UsageError):
    """An agent or message class that cannot work, refused when the class is created."""


class MessageError(UsageError):
    """A value that does not fit its message: a wrong type, a missing or unknown field, or too large."""


class PolicyError(UsageError):
    """A policy that does not parse, or names something that does not exist."""


class AddressError(UsageError):
    """A text that is no agent's address."""


class ConfigurationError(UsageError):
    """A file or option the node cannot start with: anchors, credentials, a listening address."""


class NameTaken(UsageError):
    """An agent of that name lives on this node already."""


class GaveUp(AutonomyError):
    """Every agent of the node has ended, the last one by failing too often."""


class DeliveryError(AutonomyError):
    """Base of what can happen to a message; the subclass says what did."""


class NotHandled(DeliveryError):
    """The agent has no handler for this message, or the payload does not fit it. Nothing ran."""


class Denied(DeliveryError):
    """The recipient's policy does not let this sender send it this message. Nothing ran, nothing was queued."""


class Overloaded(DeliveryError):
    """The recipient had no room for the message. Nothing ran; trying again later may work."""


class MailboxFull(Overloaded):
    """A send that may not wait met a full mailbox."""


class NotDelivered(DeliveryError):
    """The message reached no handler: the agent or its node is not there or is stopping. Nothing ran."""


class HandlerFailed(DeliveryError):
    """The handler ran and raised, or its agent was restarted while it ran. It may have had effects."""


class OutcomeUnknown(DeliveryError):
    """The connection or the recipient was lost after the message was sent. It may or may not have run."""


class NotStored(DeliveryError):
    """No relay has said that it keeps the durable message. Sent again it is another one; both may be handled."""


class TargetUnreachable(DeliveryError):
    """The outlet lets this node in, and what it leads to does not answer. Nothing was sent."""


class Deadlock(DeliveryError):
    """Waiting could never end: each agent in the cycle that the text names waits for the next one. Nothing ran."""


class CallFailed(DeliveryError):
    """A call of a tool that has no result. The text is fit for who called, a program elsewhere or a model."""


class ReplyError(AutonomyError):
    """Base of the errors that a protocol foresees: what a handler answers in place of a reply, and no failure.

    Subclass it as a frozen attrs class and list it in the handler's ``raises=``::

        @attrs.frozen
        class Insufficient(ReplyError):
            balance: int

    Raised by that handler it reaches the asker as it is, and the agent goes on.
    """


class TrustError(AutonomyError):
    """Base of what does not hold: an identity, a credential, or the vault that keeps the keys."""


class IdentityError(TrustError):
    """A key history or attestation that does not verify, or has expired."""


class CredentialError(TrustError):
    """A credential that does not verify, is not for this subject, is not trusted here, or has expired."""


class VaultError(TrustError):
    """The vault cannot be used: loose modes, a lock held by another process, a damaged or missing file."""


class ProtocolError(AutonomyError):
    """A peer sent bytes that the protocol forbids. What it sent changed nothing."""


class HandshakeFailed(ProtocolError):
    """A handshake was refused. A stranger learns no more than this; `why` is for the log at home.

    Attributes:
        why: the reason in words, never sent to the peer.
    """

    def __init__(self, why: str) -> None:
        super().__init__("the handshake failed")
        self.why = why


class LinkError(AutonomyError):
    """Base of what goes wrong between this process and the next hop."""


class LinkClosed(LinkError):
    """This side has closed the link."""


class LinkBroken(LinkError):
    """The other side or the network ended the link."""


class RelayUnreachable(LinkError):
    """No connection to the relay could be made."""


class RelayRefused(LinkError):
    """The relay answered and refused this node, or is not the relay that was asked for."""


class DatastoreError(AutonomyError):
    """Base of what goes wrong with a database or a Redis server; the subclass says what has happened there."""


class DatastoreRefused(DatastoreError):
    """It did not do one statement or command, and says why; the transaction around it is rolled back.

    Attributes:
        code: why, for programs: an SQLSTATE as ``23505``, SQLite's name as ``SQLITE_CONSTRAINT_UNIQUE``, the first word
            of Redis as ``WRONGTYPE``; empty where the driver refused it.
    """

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class DatastoreUnreachable(DatastoreError):
    """No connection to it could be made, or it did not let this process in. Nothing ran."""


class DatastoreLost(DatastoreError):
    """The connection was lost. An open transaction is rolled back; of what was under way alone the text tells."""


class DatastoreTooSlow(DatastoreError):
    """It took longer than its connector allows. What ran was interrupted, and its transaction is rolled back."""
