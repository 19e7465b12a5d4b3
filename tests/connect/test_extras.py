"""A missing extra is one sentence with the line that installs it."""

import pytest

from autonomy_trio.connect.extras import extra
from autonomy_trio.errors import ConfigurationError


def test_a_missing_extra_names_the_line_that_installs_it() -> None:
    with pytest.raises(ConfigurationError) as caught, extra("mcp", "an MCP server as an agent"):
        import there_is_no_such_module  # type: ignore[import-not-found]  # noqa: F401, PLC0415
    assert str(caught.value) == (
        "an MCP server as an agent needs there_is_no_such_module, which is not installed: "
        'pip install "autonomy-trio[mcp]"'
    )
