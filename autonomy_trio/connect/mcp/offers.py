"""What a node offers to an MCP client: the handlers that its policies open to that client, and to no other."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, final

import attrs

from autonomy_trio.actors.spec import Spec
from autonomy_trio.connect.mcp.marks import Prompt, Resource, mark_of
from autonomy_trio.connect.tools import Tool, tools_of
from autonomy_trio.errors import DeclarationError
from autonomy_trio.fabric.node import Node
from autonomy_trio.messages import wire_name
from autonomy_trio.trust.policy import Principal

AGENT: Final = "mcp"
"""The name of the agent that speaks for MCP clients."""

_SCALARS: Final = {"string", "integer", "number"}


@attrs.frozen(eq=False)
class Offer:
    """A handler that is a resource or a prompt."""

    tool: Tool
    mark: Resource | Prompt


@final
@attrs.define(eq=False)
class Offers:
    """What one node offers to those who speak as one principal."""

    node: Node
    guest: Principal
    _seen: Mapping[str, Spec] = attrs.field(factory=dict[str, Spec])
    _generation: int = -1
    _tools: Sequence[Tool] = ()
    _marked: Sequence[Offer] = ()

    def tools(self) -> list[Tool]:
        """Return the tools that the guest may be let through to."""
        self.read()
        return [tool for tool in self._tools if self._may_pass(tool)]

    def resources(self) -> list[tuple[Tool, Resource]]:
        """Return the resources, as `tools` does."""
        self.read()
        return [(each.tool, each.mark) for each in self._shown() if isinstance(each.mark, Resource)]

    def prompts(self) -> list[Tool]:
        """Return the prompts, as `tools` does."""
        self.read()
        return [each.tool for each in self._shown() if isinstance(each.mark, Prompt)]

    def read(self) -> None:
        """Look again at which agents there are and what policies open, where that has changed.

        Raises:
            DeclarationError: a handler cannot be what it is marked as.
        """
        agents = {name: spec for name, spec in self.node.agents().items() if name != AGENT}
        policies = self.node.policies
        if agents == self._seen and policies.generation == self._generation:
            return
        opened = {(each.agent, each.action) for each in policies.reachable()}
        reached = {agent for agent, _ in opened}
        found = tools_of(
            [(self.node.ref(name), spec) for name, spec in agents.items() if spec.agent in reached],
            include=lambda spec, message: (spec.agent, wire_name(message)) in opened,
            resolve=self.node.read_ref,
        )
        marks = [(tool, mark_of(tool.handler.function)) for tool in found]
        self._marked = [_checked(Offer(tool, mark)) for tool, mark in marks if mark is not None]
        self._tools = [tool for tool, mark in marks if mark is None]
        self._seen, self._generation = agents, policies.generation

    def _shown(self) -> Iterable[Offer]:
        return (each for each in self._marked if self._may_pass(each.tool))

    def _may_pass(self, tool: Tool) -> bool:
        """Tell whether a message of the guest could pass, as far as that can be known without the message."""
        decision = self.node.policies.attribute_part(
            self.guest, wire_name(tool.message), tool.spec.agent, tool.agent.name, now=time.time()
        )
        return decision is None or decision.allowed


def fields_of(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the schemas of a message's fields, by name."""
    fields: Mapping[str, Mapping[str, Any]] = schema["properties"]
    return fields


def _checked(offer: Offer) -> Offer:
    """Refuse a resource or prompt whose message cannot be made of text."""
    tool, mark = offer.tool, offer.mark
    place = f"{tool.spec.agent}.{tool.handler.method}"
    fields, needed = fields_of(tool.input_schema), set(tool.input_schema["required"])
    kind = "a prompt" if isinstance(mark, Prompt) else "a resource"
    if tool.streams:
        raise DeclarationError(f"{place} is {kind} and answers a Stream: answer a Request")
    named = set(fields) if isinstance(mark, Prompt) else set(mark.fields)
    if not needed <= named <= set(fields):
        wrong = sorted(needed - named) or sorted(named - set(fields))
        raise DeclarationError(f"{place}: the address of the resource and {tool.message.__name__} differ in {wrong[0]}")
    for name in sorted(named):
        if not (fields[name].get("type") in _SCALARS or "enum" in fields[name]):
            raise DeclarationError(f"{place} is {kind}, whose fields are text or numbers; {name} is none of them")
    return offer
