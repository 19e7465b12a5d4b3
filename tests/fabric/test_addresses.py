import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import AddressError
from autonomy_trio.fabric.links.addresses import Address, ListenAddress, RelayAddress, is_address

NODE = bytes(range(32))
NODE_TEXT = "I" + NODE.hex()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ws://relay.example.com:4000", "ws://relay.example.com:4000"),
        ("wss://relay.example.com", "wss://relay.example.com"),
        ("ws://relay.example.com/", "ws://relay.example.com"),
        ("ws://127.0.0.1:65535", "ws://127.0.0.1:65535"),
        ("ws://[::1]:4000", "ws://[::1]:4000"),
        ("tcp://[::1]:4000", "tcp://[::1]:4000"),
        ("TCP://Relay.example.com:4000/", "tcp://relay.example.com:4000"),
        ("WS://Relay.Example.com:4000", "ws://relay.example.com:4000"),
    ],
)
def test_a_relays_url_is_read_and_written_in_one_way(text: str, url: str) -> None:
    assert RelayAddress.parse(text) == RelayAddress(url)
    assert str(RelayAddress.parse(text)) == url


@pytest.mark.parametrize(
    ("text", "exposed"),
    [
        ("ws://relay.example.com:4000", True),
        ("tcp://10.0.0.1:4000", True),
        ("ws://[2001:db8::1]:4000", True),
        (f"ws://relay.example.com:4000#{NODE_TEXT}", False),
        ("wss://relay.example.com", False),
        ("ws://127.0.0.1:4000", False),
        ("ws://[::1]:4000", False),
        ("tcp://LocalHost:4000", False),
    ],
)
def test_a_relay_that_the_network_could_replace_is_known(text: str, exposed: bool) -> None:
    assert RelayAddress.parse(text).is_exposed is exposed


def test_a_relays_url_keeps_its_pin() -> None:
    relay = RelayAddress.parse(f"ws://h:1#{NODE_TEXT}")
    assert relay == RelayAddress("ws://h:1", NODE)
    assert str(relay) == f"ws://h:1#{NODE_TEXT}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h:1",
        "http://h:1",
        "ws://",
        "ws:///path",
        "ws://h:1/path",
        "ws://h:1?query",
        "ws://user:password@h:1",
        "ws://h:0",
        "ws://h:65536",
        "ws://h:x",
        "ws://h:" + "9" * 5000,
        "ws://::1:1",
        "ws://[::1",
        "ws://[h]:1",
        "ws://[:::::]:1",
        "ws://a b:1",
        "ws://h\n:1",
        "ws://h:1#",
        "tcp://h",
        "tcp://h:",
        "tcp://h:1/path",
        "wstcp://h:1",
        "ws://h:1#I12",
    ],
)
def test_what_is_no_relays_url_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="write "):
        RelayAddress.parse(text)


@pytest.mark.parametrize("text", [f"{NODE_TEXT}/counter", f"ws://h:1/{NODE_TEXT}/counter", f"wss://h/{NODE_TEXT}/c-1"])
def test_an_agents_address_is_written_as_it_was_read(text: str) -> None:
    assert str(Address.parse(text)) == text
    assert Address.parse(text).node == NODE


def test_an_agents_address_keeps_the_pin_of_its_relay() -> None:
    assert Address.parse(f"ws://h:1#{NODE_TEXT}/{NODE_TEXT}/a").relay == RelayAddress("ws://h:1", NODE)


@pytest.mark.parametrize(
    "text",
    ["", "counter", NODE_TEXT, f"{NODE_TEXT}/", f"{NODE_TEXT}/a/b", f"{NODE_TEXT}/a b", "I12/a", f"h:1/{NODE_TEXT}/a"],
)
def test_what_is_no_agents_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="write "):
        Address.parse(text)


def test_an_address_is_told_from_a_name() -> None:
    assert is_address("I12/a")
    assert not is_address("counter")


@pytest.mark.parametrize(
    ("text", "host", "port", "url"),
    [
        ("127.0.0.1:4000", "127.0.0.1", 4000, "ws://127.0.0.1:4000"),
        ("localhost:0", "localhost", 0, "ws://localhost:0"),
        (":4000", "0.0.0.0", 4000, "ws://127.0.0.1:4000"),
        ("[::1]:4000", "::1", 4000, "ws://[::1]:4000"),
        ("[::]:4000", "::", 4000, "ws://[::1]:4000"),
    ],
)
def test_where_to_listen_is_read(text: str, host: str, port: int, url: str) -> None:
    address = ListenAddress.parse(text)
    assert (address.host, address.port, address.url) == (host, port, url)
    assert ListenAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "4000", "h:", "h:x", "h:-1", "h:65536", "h:" + "9" * 5000, "h:٤", "::1:4000", "[h]:1", "[::1:1", "ws://h:1"],
)
def test_what_cannot_be_listened_on_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="write "):
        ListenAddress.parse(text)


@given(st.text() | st.from_regex(r"(wss?://)?\[?[a-z:.0-9]*\]?(:[0-9]+)?(#I[0-9a-f]*)?(/I[0-9a-f]{64}/a)?"))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for parse in (RelayAddress.parse, Address.parse, ListenAddress.parse):
        try:
            address = parse(text)
        except AddressError:
            continue
        assert str(parse(str(address))) == str(address)


@pytest.mark.parametrize("text", ["ws://[::1%x?y]:1", "ws://[::1%x#y]:1", "ws://[::1", "ws://[]:1", "ws://[x]:1"])
def test_brackets_hold_an_ipv6_address_and_nothing_else(text: str) -> None:
    with pytest.raises(AddressError):
        RelayAddress.parse(text)


def test_what_a_relay_listens_on_may_be_plain_tcp() -> None:
    assert ListenAddress.parse_link("tcp://[::1]:4000") == ListenAddress("::1", 4000, "tcp")
    assert ListenAddress.parse_link("tcp://:4000").url == "tcp://127.0.0.1:4000"
    assert ListenAddress.parse_link("127.0.0.1:4000") == ListenAddress("127.0.0.1", 4000)
    for text in ("ws://127.0.0.1:4000", "tcp://", "tcp://tcp://h:1", "udp://h:1"):
        with pytest.raises(AddressError, match="nothing to listen on"):
            ListenAddress.parse_link(text)
