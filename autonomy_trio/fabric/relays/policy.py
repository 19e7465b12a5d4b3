"""Who may register, store and publish at a relay: what a node proves is judged as for agents, by anchors and Cedar.

It is judged again, for the nodes that are registered, when something was learned of an issuer: a list that takes a
credential back, which some node shows or the relay's home has, or a newer key.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self, final

import attrs

from autonomy_trio.errors import ConfigurationError, CredentialError
from autonomy_trio.trust.anchors import Anchors, proven_attributes
from autonomy_trio.trust.credentials import Credential, judge, verify_presentations
from autonomy_trio.trust.grants import Grant
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.lists import Revocations, list_from_text
from autonomy_trio.trust.policy import Policies, Principal
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.watcher import Watcher
from autonomy_trio.trust.whole import load_policies
from autonomy_trio.wire.constants import RELAY_ISSUERS

RESOURCE: Final = "Relay"
"""What policies call a relay: the type of the resource."""


@attrs.frozen
class Register:
    """What registering is to a policy: an action, and a message that says nothing."""


@attrs.frozen
class Store:
    """What storing a sealed envelope is to a policy, and for which node."""

    destination: str


@attrs.frozen
class Publish:
    """What publishing in the directory is to a policy: an action, and a message that says nothing."""


_MESSAGES: Final = (Register, Store, Publish)


@final
@attrs.define(eq=False)
class Guest:
    """A node that was let in; made by `RelayPolicy.admit`."""

    bundle: Bundle
    credentials: Sequence[Credential] = ()
    """Those that count here."""

    @property
    def until(self) -> float:
        """Until when it is let in, in Unix seconds: then a credential expires, or a list of its issuer is too old."""
        return min((each.counts_until for each in self.credentials), default=math.inf)


@final
@attrs.define(eq=False)
class RelayPolicy:
    """Judges which nodes a relay serves; made by `load`.

    Without policies a node needs one credential that counts, of any anchor; with policies, what they ask for.
    """

    anchors: Anchors
    watcher: Watcher
    """What was seen of nodes and of issuers."""
    _policies: Policies | None
    _revocations: Revocations

    @classmethod
    def load(cls, anchors: Anchors, policy: Path | None = None) -> Self:
        """Read what decides.

        Args:
            anchors: the authorities that count at this relay.
            policy: a file of Cedar policies about the actions ``Register``, ``Store`` (with
                ``context.message.destination``) and ``Publish``, and a resource of type ``Relay``; None asks for a
                credential and nothing more.

        Raises:
            PolicyError: the file cannot be read, or a policy in it cannot be right.
            ConfigurationError: there are more anchors than a relay can name to a node.
        """
        policies = _compiled(anchors, policy)
        watcher = Watcher(anchors.by_identifier)
        return cls(anchors, watcher, policies, Revocations(watcher))

    def change(self, anchors: Anchors, policy: Path | None = None) -> None:
        """Decide by other anchors and policies from now on; what was seen and taken back is remembered.

        Raises:
            PolicyError, ConfigurationError: as `load`; then everything stays as it was.
        """
        self._policies = _compiled(anchors, policy)
        self.anchors = anchors
        self.watcher.set_anchors(anchors.by_identifier)

    @property
    def issuers(self) -> tuple[bytes, ...]:
        """Whose credentials a node is asked for."""
        return tuple(self.anchors.by_identifier)

    @property
    def generation(self) -> int:
        """Grows with what was learned of issuers: guests are then to be judged again."""
        return self._revocations.generation

    def admit(self, bundle: Bundle, presentations: Sequence[bytes], relay: bytes, now: float) -> Guest:
        """Judge a node that has proven who it is.

        Args:
            bundle: its verified identity.
            presentations: the credentials it shows.
            relay: the relay's identifier.
            now: Unix seconds.

        Returns:
            what it is from now on.

        Raises:
            CredentialError: it is not let in; the text is for the log at home.
        """
        guest = Guest(bundle)
        self.show(guest, presentations, relay, now)
        return guest

    def show(self, guest: Guest, presentations: Sequence[bytes], relay: bytes, now: float) -> None:
        """Judge a node by other credentials than before; raises as `admit`."""
        credentials, refused = verify_presentations(
            presentations,
            subject=guest.bundle.identifier,
            subject_seq=guest.bundle.seq,
            anchors=self.anchors,
            revocations=self._revocations,
            now=now,
        )
        self._judge(guest, credentials, refused, relay, now)

    def judge_again(self, guest: Guest, relay: bytes, now: float) -> None:
        """Judge a node by what is known now; raises as `admit`."""
        credentials: list[Credential] = []
        refused: list[CredentialError] = []
        for each in guest.credentials:
            try:
                credentials.append(
                    judge(
                        each,
                        subject=guest.bundle.identifier,
                        subject_seq=guest.bundle.seq,
                        anchors=self.anchors,
                        revocations=self._revocations,
                        now=now,
                    )
                )
            except CredentialError as error:
                refused.append(error)
        self._judge(guest, credentials, refused, relay, now)

    def may_store(self, guest: Guest, destination: bytes, relay: bytes, now: float) -> bool:
        """Tell whether a node may have something stored for another one."""
        return self._why_not(guest, Store(format_identifier(destination)), relay, now) is None

    def may_publish(self, guest: Guest, relay: bytes, now: float) -> bool:
        """Tell whether a node may be listed in the directory."""
        return self._why_not(guest, Publish(), relay, now) is None

    def obey(self, text: str, now: float) -> None:
        """Take note of a revocation list.

        Raises:
            CredentialError: it is none, or contradicts what was seen first.
        """
        revocations, history = list_from_text(text)
        self._revocations.learn(history, revocations, anchors=self.anchors, now=now)

    def _judge(
        self,
        guest: Guest,
        credentials: Sequence[Credential],
        refused: Sequence[CredentialError],
        relay: bytes,
        now: float,
    ) -> None:
        guest.credentials = credentials
        if self._policies is None and not credentials:
            why = f": {refused[0]}" if refused else ""
            raise CredentialError(f"it shows no credential that counts here{why}")
        if (reason := self._why_not(guest, Register(), relay, now)) is not None:
            raise CredentialError(f"it may not register: {reason}")

    def _why_not(self, guest: Guest, message: Register | Store | Publish, relay: bytes, now: float) -> str | None:
        if self._policies is None:
            return None
        name = format_identifier(guest.bundle.identifier)
        attributes, _ = proven_attributes(guest.credentials)
        ids = frozenset(each.id for each in guest.credentials)
        principal = Principal(name, name, attributes, ids, guest.until)
        action = type(message).__name__
        decision = self._policies.decide(principal, action, RESOURCE, format_identifier(relay), message, now=now)
        return None if decision.allowed else decision.reason


def _compiled(anchors: Anchors, policy: Path | None) -> Policies | None:
    if len(anchors.by_identifier) > RELAY_ISSUERS:
        count = len(anchors.by_identifier)
        raise ConfigurationError(f"a relay names at most {RELAY_ISSUERS} anchors to a node: take away some of {count}")
    if policy is None:
        return None
    grant = Grant(RESOURCE, "serve", tuple(each.__name__ for each in _MESSAGES), _MESSAGES, None)
    return Policies.compile([grant], anchors, load_policies(policy))
