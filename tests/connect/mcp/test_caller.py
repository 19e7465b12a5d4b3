import pytest
from attrs import frozen

from autonomy_trio.connect.mcp import Unsupported, caller_of


@frozen
class Ask:
    pass


async def test_without_a_client_there_is_nobody_to_tell() -> None:
    caller = caller_of(Ask())
    await caller.progress(1, 2)
    await caller.log("info", "something")
    await caller.hang_up()


async def test_without_a_client_there_is_nobody_to_ask() -> None:
    with pytest.raises(Unsupported, match="no MCP client to lend a model"):
        await caller_of(Ask()).sample("hello")
    with pytest.raises(Unsupported, match="no MCP client to ask a person"):
        await caller_of(Ask()).elicit("hello", {"type": "object"})
