"""``policy check`` and ``policy explain``: what policies say, without starting anything."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from autonomy_trio.actors.spec import Spec
from autonomy_trio.cli.options import (
    FILE,
    anchors_of,
    anchors_option,
    home_option,
    parse_attributes,
    policy_option,
)
from autonomy_trio.cli.output import debug_option, say
from autonomy_trio.cli.screen import checked_screen
from autonomy_trio.cli.send import parse_message
from autonomy_trio.cli.target import load_agents
from autonomy_trio.errors import ConfigurationError, MessageError, PolicyError
from autonomy_trio.fabric.opening import check_agents
from autonomy_trio.logs import printable
from autonomy_trio.messages import Untyped, decode_payload, encode_payload
from autonomy_trio.trust.allow import suggest
from autonomy_trio.trust.attributes import type_of
from autonomy_trio.trust.policy import Decision, Policies, Principal
from autonomy_trio.trust.records import format_identifier

SOMEBODY: Final = format_identifier(bytes(32))
"""Who is asked about when nobody is named."""

MOST_REASON: Final = 1000
"""Characters of a reason that are shown."""


@click.group(short_help="Check and explain policies.")
def policy() -> None:
    """Check policies before a node runs with them, and explain what they decide."""


@policy.command(short_help="Check a file of policies.")
@click.argument("file", type=FILE)
@click.argument("target")
@home_option
@anchors_option
@click.option("--allow-evadable", is_flag=True, help="Accept policies that somebody evades by hiding an attribute.")
@debug_option
def check(file: Path, target: str, home: Path, anchors: Path | None, allow_evadable: bool) -> None:
    """Check the policies in FILE together with the agents of TARGET, and list what can be reached.

    Refused is what would stop 'run', and a policy that says more to those who show less: a holder chooses which
    credentials to show, so 'forbid … when { principal has team && … }' stops only the honest. Write it with 'unless'.
    """
    agents, policies = check_agents(load_agents(target), anchors or anchors_of(home), file)
    if not allow_evadable:
        for place, names in policies.evadable.items():
            msg = (
                f"{place}: whoever hides {' or '.join(names)} evades this policy: say what must be shown, in a forbid"
                " under unless and in a permit under when, or add --allow-evadable"
            )
            raise PolicyError(msg)
    click.echo(checked_screen(agents, policies))
    say(f"{file} is right")


@policy.command(short_help="Explain who may do what.")
@click.argument("target")
@click.argument("message", required=False)
@policy_option
@home_option
@anchors_option
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=VALUE",
    help="What the sender proves: team=payments, level=3, cleared=true, roles={auditor,clerk}. Repeatable.",
)
@click.option(
    "--id",
    "identifier",
    default=SOMEBODY,
    metavar="I…",
    show_default=False,
    help="Who the sender is: an agent, or a node.",
)
@click.option(
    "--node", metavar="I…", help="The sender's node, where the sender is an agent; without, the sender itself."
)
@click.option("--sealed", is_flag=True, help="As of a durable message, written now.")
@debug_option
def explain(  # noqa: PLR0913, PLR0917 - the options of the command
    target: str,
    message: str | None,
    policy: Path | None,
    home: Path,
    anchors: Path | None,
    attributes: tuple[str, ...],
    identifier: str,
    node: str | None,
    sealed: bool,
) -> None:
    """Say what a sender with these attributes may send to the agents of TARGET, and which clause decides.

    'perhaps' leaves it to the message. With a MESSAGE, as in '{"Add": {"amount": 3}}', there is no perhaps.
    """
    agents, policies = check_agents(load_agents(target), anchors or anchors_of(home), policy)
    principal = Principal(identifier, node or identifier, parse_attributes(attributes))
    _check_attributes(principal, policies, declared=anchors or anchors_of(home))
    sent = None if message is None else parse_message(message)
    if sent is not None:
        known = {action for spec in agents.values() for action in spec.wire_table()}
        if sent.name not in known:
            msg = f"no agent of {target} takes {printable(sent.name, 80)!r}: {suggest(sent.name, known)}"
            raise ConfigurationError(msg)
    for name, spec in agents.items():
        rows = list(_explained(policies, principal, name, spec, sent, sealed=sealed))
        if rows:
            width = max(len(action) for action, _, _ in rows)
            lines = [f"  {action:{width}}  {verdict:7}  {why}" for action, verdict, why in rows]
            click.echo("\n".join([name, *lines, ""]))
    if policies.restricts_sending and sent is None:
        verdict, why = _said(policies.sending(Principal("here", "here"), principal, now=time.time(), sealed=sealed))
        click.echo(f"sending to it  {verdict:7}  {why}")


def _check_attributes(principal: Principal, policies: Policies, declared: Path | None) -> None:
    """Refuse an attribute that no policy could ever read."""
    for name, value in principal.attributes.items():
        if name not in policies.attributes:
            whose = "no anchor may assert" if declared else "no policy reads"
            msg = f"{whose} {name!r}: {suggest(name, policies.attributes)}"
            raise ConfigurationError(msg)
        kind = policies.attributes[name]
        if kind not in {None, type_of(value)}:
            msg = f"--attribute {name} is a {type_of(value)} here, and policies read it as a {kind}: write one"
            raise ConfigurationError(msg)


def _explained(  # noqa: PLR0913 - who, what, whom and how
    policies: Policies, principal: Principal, name: str, spec: Spec, sent: Untyped | None, *, sealed: bool
) -> Iterator[tuple[str, str, str]]:
    """Yield each message, whether it may be sent, and why."""
    now = time.time()
    created = int(now) if sealed else None
    for action, (cls, _) in sorted(spec.wire_table().items()):
        if sent is not None and sent.name != action:
            continue
        decision = policies.attribute_part(principal, action, spec.agent, name, now=now, created=created)
        if decision is None and sent is not None:
            decision = policies.decide(
                principal, action, spec.agent, name, _decoded(sent, cls), now=now, created=created
            )
        if decision is None:
            left = "; ".join(policies.left_open(action, spec.agent))
            yield action, "perhaps", printable(left, MOST_REASON)
        else:
            yield action, *_said(decision)
    for topic in sorted(spec.topics) if sent is None else ():
        judged = policies.attribute_part(principal, topic, spec.agent, name, now=now)
        if judged is not None:
            yield topic, *_said(judged)


def _said(decision: Decision) -> tuple[str, str]:
    return "yes" if decision.allowed else "no", printable(decision.reason, MOST_REASON)


def _decoded(sent: Untyped, cls: type) -> object:
    try:
        return decode_payload(encode_payload(sent), cls)
    except MessageError as error:
        msg = f"the message does not fit: {error}"
        raise ConfigurationError(msg) from None
