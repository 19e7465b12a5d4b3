"""Who may register with a relay: what a node proves is judged as it is for agents, by anchors and by Cedar policies."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self, final

import attrs

from autonomy_trio.errors import ConfigurationError, CredentialError
from autonomy_trio.trust.anchors import Anchors, proven_attributes
from autonomy_trio.trust.credentials import verify_presentations
from autonomy_trio.trust.grants import Grant
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.lists import Revocations
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


REGISTER: Final = Register.__name__


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
            policy: a file of Cedar policies about the action ``Register`` and a resource of type ``Relay``; None asks
                for a credential and nothing more.

        Raises:
            PolicyError: the file cannot be read, or a policy in it cannot be right.
            ConfigurationError: there are more anchors than a relay can name to a node.
        """
        if len(anchors.by_identifier) > RELAY_ISSUERS:
            count = len(anchors.by_identifier)
            raise ConfigurationError(
                f"a relay names at most {RELAY_ISSUERS} anchors to a node: take away some of {count}"
            )
        policies = None
        if policy is not None:
            grant = Grant(RESOURCE, "register", (REGISTER,), (Register,), None)
            policies = Policies.compile([grant], anchors, load_policies(policy))
        watcher = Watcher(anchors.by_identifier)
        return cls(anchors, watcher, policies, Revocations(watcher))

    @property
    def issuers(self) -> tuple[bytes, ...]:
        """Whose credentials a node is asked for."""
        return tuple(self.anchors.by_identifier)

    def admit(self, bundle: Bundle, presentations: Sequence[bytes], relay: bytes, now: float) -> float:
        """Judge a node that has proven who it is.

        Args:
            bundle: its verified identity.
            presentations: the credentials it shows.
            relay: the relay's identifier.
            now: Unix seconds.

        Returns:
            until when it is let in, in Unix seconds: then a credential expires, and it may come again.

        Raises:
            CredentialError: it is not let in; the text is for the log at home.
        """
        name = format_identifier(bundle.identifier)
        credentials, refused = verify_presentations(
            presentations,
            subject=bundle.identifier,
            subject_seq=bundle.seq,
            anchors=self.anchors,
            revocations=self._revocations,
            now=now,
        )
        until = min((each.counts_until for each in credentials), default=math.inf)
        if self._policies is None:
            if not credentials:
                why = f": {refused[0]}" if refused else ""
                raise CredentialError(f"it shows no credential that counts here{why}")
            return until
        attributes, _ = proven_attributes(credentials)
        principal = Principal(name, name, attributes, frozenset(each.id for each in credentials), until)
        decision = self._policies.decide(principal, REGISTER, RESOURCE, format_identifier(relay), Register(), now=now)
        if not decision.allowed:
            raise CredentialError(f"it may not register: {decision.reason}")
        return until
