"""Padmé padding: the length of a message tells little of it and costs at most 12 percent.

Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", PETS 2019, section 4.
"""

from collections.abc import Sequence
from typing import Final

from autonomy_trio.errors import ProtocolError
from autonomy_trio.wire.constants import LEAST_PLAINTEXT_BYTES

_LENGTH_BYTES: Final = 4


def padded_length(length: int) -> int:
    """Round a plaintext's length in bytes up to one whose binary form ends in zeros.

    A number of `e + 1` binary digits keeps its first `s + 1`, where `s` is the count of digits of `e`: as many as a
    floating-point number of that size would. So lengths up to L leak O(log log L) bits.

    Args:
        length: bytes, at least 0.

    Returns:
        The least length of that form that is not below `length`, and at least 64.
    """
    if length <= LEAST_PLAINTEXT_BYTES:
        return LEAST_PLAINTEXT_BYTES
    exponent = length.bit_length() - 1
    zeros = exponent - exponent.bit_length()
    mask = (1 << zeros) - 1
    return (length + mask) & ~mask


def frame(body: bytes, before: bytes = b"", behind: Sequence[bytes] = ()) -> bytes:
    """Return `before | length u32 of the body | body | what is behind it`, padded with zeros as a whole."""
    parts = (before, len(body).to_bytes(_LENGTH_BYTES, "big"), body, *behind)
    length = sum(map(len, parts))
    return b"".join((*parts, bytes(padded_length(length) - length)))


def unframe(plaintext: bytes, before: int = 0) -> bytes:
    """Return the body that `frame` padded, after so many bytes of something else, with nothing behind it.

    Raises:
        ProtocolError: the length, or the padding, is not the one that `frame` makes.
    """
    body, end = unframe_body(plaintext, before)
    check_padding(plaintext, end)
    return body


def unframe_body(plaintext: bytes, before: int = 0) -> tuple[bytes, int]:
    """Return the body in what `frame` has made, after so many bytes of something else, and where it ends.

    What follows is to be checked with `check_padding`.

    Raises:
        ProtocolError: it is longer than all of it.
    """
    start = before + _LENGTH_BYTES
    end = start + int.from_bytes(plaintext[before:start], "big")
    if end > len(plaintext):
        raise _misframed()
    return plaintext[start:end], end


def check_padding(plaintext: bytes, end: int) -> None:
    """Refuse a padding that `frame` would not have made of as many bytes as end there.

    Raises:
        ProtocolError: it is too long, too short, or not of zeros.
    """
    if padded_length(end) != len(plaintext) or plaintext.count(0, end) != len(plaintext) - end:
        raise _misframed()


def _misframed() -> ProtocolError:
    return ProtocolError("an envelope is not framed and padded as it must be")
