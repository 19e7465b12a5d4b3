"""How deep a payload may be and of how many parts, found before it is parsed: a parser would have made them by then.

A stranger's 128 KiB can be 130,000 empty maps, or lists 130,000 deep; what a parser does with them depends on the
interpreter, and that two nodes read the same must not.
"""

from typing import Final

MOST_DEPTH: Final = 64
"""Objects, lists and maps inside each other, the message itself among them."""
MOST_PARTS: Final = 16_384
"""Objects, lists and maps of one payload: a map of one pair takes 3 bytes of a payload and some 300 of memory."""

_OUTSIDES: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_SIZES: Final[dict[int, int]] = {
    **dict.fromkeys(range(0x80), 1),
    **{head: 1 + (head & 31) for head in range(0xA0, 0xC0)},
    **dict.fromkeys([0xC0, 0xC1, 0xC2, 0xC3, *range(0xE0, 0x100)], 1),
    **dict(zip((0xCA, 0xCB, *range(0xCC, 0xD4)), (5, 9, 2, 3, 5, 9, 2, 3, 5, 9), strict=True)),
    **{0xD4 + power: 2 + 2**power for power in range(5)},
}
"""Bytes of a value whose first byte says all."""
_LENGTHS: Final = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
"""Of a value that declares its length: the bytes this takes, and those between it and the contents."""


def excess(payload: bytes) -> str | None:
    """Say what a payload of msgpack has too much of; None where it is within bounds, or is no msgpack.

    It reads first bytes and lengths alone, and makes nothing. Source: the msgpack specification, "Formats".
    """
    # Most payloads have so few bytes that could begin a list or map that nothing has to be walked.
    if len(payload) - len(payload.translate(None, _OUTSIDES)) <= MOST_DEPTH:
        return None
    place, left, parts = 0, 1, 0
    around: list[int] = []  # values that are still to come in each list and map around this place
    while place < len(payload):
        head = payload[place]
        left -= 1
        if head in _SIZES:
            place += _SIZES[head]
        elif head in _LENGTHS:
            width, between = _LENGTHS[head]
            place += 1 + width + between + int.from_bytes(payload[place + 1 : place + 1 + width])
        else:
            width = 0 if head < 0xA0 else 2 << (head & 1)  # noqa: PLR2004 - where the short maps and lists end
            count = int.from_bytes(payload[place + 1 : place + 1 + width]) if width else head & 15
            is_map = head < 0x90 or head >= 0xDE  # noqa: PLR2004 - msgpack's heads of maps
            place, parts = place + 1 + width, parts + 1
            around.append(left)
            left = 2 * count if is_map else count
            if len(around) > MOST_DEPTH:
                return f"is nested more than {MOST_DEPTH} deep"
            if parts > MOST_PARTS:
                return f"has more than {MOST_PARTS:,} objects, lists and maps in it"
        while not left:
            if not around:
                return None
            left = around.pop()
    return None
