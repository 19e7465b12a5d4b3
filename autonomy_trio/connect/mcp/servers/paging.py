"""Pages of a server's lists, cut so that each fits one message, whatever the server takes for a page."""

import re
from typing import Any, Final, TypeVar

from autonomy_trio.connect.mcp.servers.messages import INTERNAL_ERROR, INVALID_PARAMS, McpError
from autonomy_trio.errors import MessageError
from autonomy_trio.messages import encode_payload

T = TypeVar("T")

_CURSOR: Final = re.compile(r"([0-9]{1,9})(?::(.*))?", re.DOTALL)
"""How many entries of a server's page were had, and what the server gave that page for, if anything."""


def read_cursor(cursor: str | None) -> tuple[int, str | None]:
    """Return what a cursor of ours says: the entries that were had, and the server's own cursor.

    Raises:
        McpError: it is none of ours.
    """
    if cursor is None:
        return 0, None
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise McpError(INVALID_PARAMS, f"{cursor[:40]!r} is no cursor that this agent has given")
    return int(found[1]), found[2]


def _cursor(offset: int, cursor: str | None) -> str:
    return str(offset) if cursor is None else f"{offset}:{cursor}"


def fitting_page(
    page: Any,  # noqa: ANN401 - the class of a page: entries and a cursor
    entries: tuple[Any, ...],
    offset: int,
    cursor: str | None,
    following: str | None,
) -> Any:  # noqa: ANN401 - a page
    """Return a page with as many entries as fit one message, and the cursor that goes on behind them.

    Args:
        page: the class of the page.
        entries: the server's entries that are wanted.
        offset: how many entries of the server's page came before.
        cursor: what the server gave that page for.
        following: what the server gives its next page for.

    Raises:
        McpError: a single entry does not fit.
    """
    count = len(entries)
    while True:
        whole = count == len(entries)
        after = (None if following is None else _cursor(0, following)) if whole else _cursor(offset + count, cursor)
        found = page(entries[:count], after)
        try:
            encode_payload(found)
        except MessageError as error:
            if count <= 1:
                name = getattr(entries[0], "name", "") if entries else ""
                raise McpError(INTERNAL_ERROR, f"the server's entry {name[:100]!r}: {error}") from None
            count //= 2
        else:
            return found
