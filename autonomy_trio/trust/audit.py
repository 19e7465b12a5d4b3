"""What an audit log says of a decision: one line of JSON, of bounded size, without anything that was sent.

Names of policies, attributes and messages are in it, and who asked whom; the values of a message's fields are not,
which is why Cedar's own words on a failed evaluation, that quote them, stay out.
"""

import json
from datetime import UTC, datetime
from typing import Final

from autonomy_trio.trust.policy import Decision, Principal

MOST_LINE: Final = 8192
"""Bytes of a line, its end included."""

_MOST_NAME: Final = 120
"""Characters of a name; a stranger chooses some of them."""
_MOST_LISTED: Final = 4
"""Policies and credentials that are listed."""
_MOST_REASON: Final = 300
"""Characters of the reason."""


def audit_line(  # noqa: PLR0913 - who, what and whom
    decision: Decision, principal: Principal, action: str, agent: str, resource: str, *, now: float
) -> bytes:
    """Return the line about a decision, with its end.

    Args:
        decision: what was decided.
        principal: the sender.
        action: the message's wire name, or ``Send``.
        agent: the class of the receiving agent; ``Principal`` for what is sent to another node.
        resource: the identifier of the receiver.
        now: Unix seconds.
    """
    failed = bool(decision.errors)
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "allowed": decision.allowed,
        "principal": _name(principal.id),
        "node": _name(principal.node),
        "action": _name(action),
        "agent": _name(agent),
        "resource": _name(resource),
        "policies": [_name(each) for each in decision.policies[:_MOST_LISTED]],
        "reason": "a policy could not be evaluated" if failed else _name(decision.reason, _MOST_REASON),
        "errors": len(decision.errors),
        "credentials": [each.hex()[:64] for each in sorted(decision.credentials)[:_MOST_LISTED]],
        "generation": decision.generation,
    }
    return _encode(line)


def gap_line(lost: int, *, now: float) -> bytes:
    """Return the line that says how many lines before it could not be written."""
    return _encode({"time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"), "lost": lost})


def _name(text: str, most: int = _MOST_NAME) -> str:
    """Return a text, some of it a stranger's, that does nothing to a terminal which shows the file."""
    return "".join(each if each.isprintable() else "?" for each in text[:most])


def _encode(line: dict[str, object]) -> bytes:
    return (json.dumps(line, ensure_ascii=False) + "\n").encode()
