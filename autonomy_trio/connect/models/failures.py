"""What a vendor's library raises, as a sentence that says whose fault it is, and whether to try again.

The libraries' own words stay here: they quote what was sent, and a refused key in part.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import attrs
import httpx2

from autonomy_trio.connect.models.keys import NO_KEY
from autonomy_trio.connect.models.messages import Kind, ModelFailed
from autonomy_trio.connect.models.retrying import retry_after
from autonomy_trio.connect.models.vendor import BrokenStreamError, CutOffError, Failure, RubbishError
from autonomy_trio.logs import printable

MOST_QUOTED: Final = 200
"""Characters of what a vendor says about a request that it refuses."""

FOREIGN: Final = (httpx2.HTTPError, BrokenStreamError, CutOffError, RubbishError, ValueError)
"""What a try can end in besides a library's own exceptions."""

_TOO_LONG: Final = ("context_length_exceeded", "exceeds the available context", "prompt is too long", "context length")
"""What a refusal says of a prompt that is too long."""
_NO_ANSWER: Final = 300
"""The first status that is none of success."""
_TOO_LARGE: Final = 413
_SERVER: Final = 500
"""The first status that is a server's fault."""
_AGAIN: Final = frozenset({408, 409, 425, 429})
"""Statuses below 500 that another try may get over."""


@attrs.frozen
class Judge:
    """Tells what went wrong with one model."""

    model: str
    """What the model is called in a sentence."""
    key: str = attrs.field(repr=False)
    """What no sentence may contain."""
    patience: float
    """Seconds that the vendor has for each byte."""

    def judge(self, error: Exception, now: float) -> Failure:
        """Say what an exception of a vendor's library means.

        Args:
            error: what the library raised.
            now: Unix seconds.
        """
        status = getattr(error, "status_code", None)
        if isinstance(status, int) and status >= _NO_ANSWER:
            headers: Mapping[str, str] = cast("Any", error).response.headers
            return self._refused(status, error, retry_after(headers.get("retry-after"), now))
        cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
        return self._broken(error if cause is None else cause)

    def _fail(self, kind: Kind, why: str, *, again: bool = False, after: float | None = None) -> Failure:
        return Failure(ModelFailed(kind, f"{self.model} {why}"), again, after)

    def _refused(self, status: int, error: Exception, after: float | None) -> Failure:
        said = self._quoted(error)
        is_too_long = any(each in _words_of(error).lower() for each in _TOO_LONG)
        match status:
            case 401 | 403 if self.key == NO_KEY:
                found = self._fail("key", f"asks for a key ({status}): whoever runs it has to give it a key_file=")
            case 401 | 403:
                found = self._fail("key", f"refuses its key ({status}): whoever runs it has to give another")
            case 404:
                why = f"is unknown there (404): whoever runs it has to mend its name or base_url{said}"
                found = self._fail("unknown model", why)
            case 429:
                why = "takes no more requests now (429): ask later, or less often"
                found = self._fail("rate", why, again=True, after=after)
            case _ if status >= _SERVER or status in _AGAIN:
                why = f"failed on its side ({status}): ask later"
                found = self._fail("server", why, again=True, after=after)
            case _ if status == _TOO_LARGE or is_too_long:
                found = self._fail("too long", f"was asked too much at once ({status}): say less{said}")
            case _:
                found = self._fail("request", f"refuses the request ({status}){said}")
        return found

    def _quoted(self, error: Exception) -> str:
        """Return what the vendor says of a request, fit for a sentence."""
        words = _words_of(error)
        if self.key != NO_KEY:
            words = words.replace(self.key, "…")
        return f": it says {printable(words, MOST_QUOTED)!r}" if words else ""

    def _broken(self, error: BaseException) -> Failure:
        kind, why, again = self._meaning(error)
        return self._fail(kind, why, again=again)

    def _meaning(self, error: BaseException) -> tuple[Kind, str, bool]:  # noqa: PLR0911 - one for each way to break
        match error:
            case httpx2.ConnectTimeout() | httpx2.ConnectError() | httpx2.UnsupportedProtocol() | httpx2.ProxyError():
                return "unreachable", "was not reached: is its host right, and does it listen?", True
            case httpx2.TimeoutException():
                return "no answer", f"said nothing for {self.patience:g} s: ask later, or give it more patience=", True
            case CutOffError() | httpx2.NetworkError() | httpx2.RemoteProtocolError():
                return "cut off", "ended its answer in the middle: ask again", True
            case BrokenStreamError():
                return "server", "failed on its side in the middle of its answer: ask later", True
            case RubbishError():
                return "rubbish", f"{error}: is its base_url right?", False
            case ValueError():  # json's and Unicode's
                return "rubbish", "answered something that is no JSON: is its base_url right?", False
            case _:
                return "server", f"could not be asked ({type(error).__name__})", True


def _words_of(error: Exception) -> str:
    """Return what a vendor says in the message of its error, and its code."""
    body = getattr(error, "body", None)
    if not isinstance(body, Mapping):
        return ""
    inner = cast("Mapping[str, object]", body).get("error", cast("object", body))
    if not isinstance(inner, Mapping):
        return inner if isinstance(inner, str) else ""
    parts = [cast("Mapping[str, object]", inner).get(name) for name in ("message", "code")]
    return " ".join(each for each in parts if isinstance(each, str))
