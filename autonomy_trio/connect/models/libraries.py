"""The vendors' libraries, which only who uses them has installed: found, and opened."""

from importlib import import_module

from autonomy_trio.connect.extras import extra
from autonomy_trio.connect.models.vendor import Vendor, Way


def check_extra(vendor: str) -> None:
    """See that a vendor's library is there.

    Raises:
        ConfigurationError: it is not.
    """
    with extra("models", f"a model of {vendor}"):
        import_module(vendor)


def open_vendor(way: Way) -> Vendor:
    """Return a model over its vendor's library; nothing is sent. To be closed."""
    if way.vendor == "openai":
        from autonomy_trio.connect.models.over_openai import OpenAI  # noqa: PLC0415 - it imports the vendor's library

        return OpenAI.connect(way)
    from autonomy_trio.connect.models.over_anthropic import Anthropic  # noqa: PLC0415 - as above

    return Anthropic.connect(way)
