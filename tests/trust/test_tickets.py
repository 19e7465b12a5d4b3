import base64

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autonomy_trio.errors import CredentialError, VaultError
from autonomy_trio.trust.records import SignatureContext
from autonomy_trio.trust.tickets import TICKET_BYTES_LIMIT, Ticket, make_ticket, verify_ticket
from autonomy_trio.trust.vault import Vault

NOW = 1_700_000_000
VAULT = Vault.in_memory()
STRANGER = Vault.in_memory()
RELAY = "ws://relay.example.com:4000"
ATTRIBUTES = {"team": "payments", "roles": frozenset({"a", "b"})}


def make(vault: Vault = VAULT, **changed: object) -> str:
    return make_ticket(vault, **{"relay": RELAY, "attributes": ATTRIBUTES, "now": NOW} | changed)


def encoded(text: str) -> bytes:
    digits = text.removeprefix("ticket-")
    return base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))


def as_text(data: bytes) -> str:
    return "ticket-" + base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed_by_hand(
    vault: Vault = VAULT, bundle: bytes | None = None, context: SignatureContext = "ticket", **changed: object
) -> str:
    """A ticket as `make_ticket` would not make it: fields by position."""
    fields = {
        "version": 1,
        "issuer": vault.identifier,
        "issuer_seq": 0,
        "id": bytes(16),
        "relay": RELAY,
        "attributes": [["team", "payments"]],
        "not_before": NOW,
        "expires": NOW + 600,
    } | changed
    body = msgspec.msgpack.encode(list(fields.values()))
    signed = [body, vault.sign_as_identity(context, body)]
    return as_text(msgspec.msgpack.encode([vault.bundle(NOW) if bundle is None else bundle, signed]))


def test_a_ticket_says_who_the_authority_is_where_it_is_reached_and_what_is_true() -> None:
    ticket = verify_ticket(make(), NOW)
    assert ticket.issuer == VAULT.identifier
    assert ticket.bundle.encoded == VAULT.bundle(NOW)
    assert (ticket.relay, ticket.attributes) == (RELAY, ATTRIBUTES)
    assert (ticket.not_before, ticket.expires) == (NOW, NOW + 600)
    assert len(ticket.id) == 16


def test_a_ticket_is_one_word_that_a_terminal_may_break_into_lines() -> None:
    text = make()
    assert text.isascii()
    assert len(text.split()) == 1
    wrapped = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    assert verify_ticket(f" {wrapped}\r\n", NOW) == verify_ticket(text, NOW)


def test_two_tickets_have_two_ids_which_their_reprs_do_not_show() -> None:
    assert verify_ticket(make(), NOW).id != verify_ticket(make(), NOW).id
    ticket = verify_ticket(make(random=lambda count: b"r" * count), NOW)
    assert ticket.id == b"r" * 16
    assert "rrrr" not in repr(ticket)


def test_a_ticket_holds_for_ten_minutes() -> None:
    verify_ticket(make(), NOW + 599.9)
    with pytest.raises(CredentialError, match="expired 0 s ago: ask for a new one"):
        verify_ticket(make(), NOW + 600)


def test_a_ticket_may_begin_60_seconds_from_now_and_not_61() -> None:
    text = signed_by_hand(not_before=NOW + 60)
    verify_ticket(text, NOW)
    with pytest.raises(CredentialError, match="begins in 61 s: set the clocks"):
        verify_ticket(text, NOW - 1)


@pytest.mark.parametrize("expires", [NOW + 601, NOW, NOW - 1])
def test_a_ticket_for_another_time_than_ten_minutes_at_most_is_refused(expires: int) -> None:
    with pytest.raises(CredentialError, match="holds for at most 600 s"):
        verify_ticket(signed_by_hand(expires=expires), NOW)


def test_a_ticket_with_any_bit_flipped_or_cut_off_is_refused() -> None:
    data = encoded(signed_by_hand())
    verify_ticket(as_text(data), NOW)
    for index in range(len(data)):
        with pytest.raises(CredentialError):
            verify_ticket(as_text(data[:index]), NOW)
        for bit in range(8):
            with pytest.raises(CredentialError):
                verify_ticket(as_text(data[:index] + bytes([data[index] ^ 1 << bit]) + data[index + 1 :]), NOW)


def test_a_ticket_of_another_signer_or_purpose_or_key_is_refused() -> None:
    with pytest.raises(CredentialError, match=r"is not by I.*, whose bundle came with it"):
        verify_ticket(signed_by_hand(bundle=STRANGER.bundle(NOW)), NOW)
    with pytest.raises(CredentialError, match="is not signed by"):
        verify_ticket(signed_by_hand(STRANGER, bundle=VAULT.bundle(NOW), issuer=VAULT.identifier), NOW)
    with pytest.raises(CredentialError, match="is not signed by"):
        verify_ticket(signed_by_hand(context="credential"), NOW)
    with pytest.raises(CredentialError, match="or by another of its keys"):
        verify_ticket(signed_by_hand(issuer_seq=1), NOW)
    with pytest.raises(CredentialError, match=r"the ticket cannot be accepted: .*bundle"):
        verify_ticket(signed_by_hand(bundle=b""), NOW)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"id": bytes(15)},
        {"relay": ""},
        {"relay": "x" * 513},
        {"attributes": [["node", "x"]]},
        {"attributes": [["team", 1.5]]},
        {"attributes": [[f"a{number}", "x" * 500] for number in range(8)]},
        {"more": 1},
    ],
    ids=repr,
)
def test_a_malformed_ticket_is_refused_though_its_authority_signed_it(fields: dict[str, object]) -> None:
    with pytest.raises(CredentialError):
        verify_ticket(signed_by_hand(**fields), NOW)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"attributes": {"if": 1}}, "the ticket cannot be made: 'if' cannot name an attribute"),
        ({"attributes": {f"a{number}": "x" * 500 for number in range(8)}}, "a ticket may have 4000 bytes"),
        ({"relay": ""}, "this is not a ticket"),
    ],
)
def test_what_could_not_be_redeemed_is_not_made(changed: dict[str, object], why: str) -> None:
    with pytest.raises(CredentialError, match=why):
        make(**changed)


def test_a_closed_vault_makes_no_ticket() -> None:
    vault = Vault.in_memory()
    vault.close()
    with pytest.raises(VaultError, match="is closed"):
        make(vault)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no ticket, which begins with 'ticket-'"),
        ("ticket", "is no ticket"),
        ("ticket-", "is not a ticket"),
        ("ticket-!!!!", "is damaged: copy it again, whole"),
        ("ticket-A", "is damaged"),
        ("ticket-" + "A" * 2 * TICKET_BYTES_LIMIT, "too long for a ticket"),
        ("ticket-" + "A" * (TICKET_BYTES_LIMIT * 4 // 3 + 7), "a ticket may have 13312 bytes"),
    ],
)
def test_a_text_that_is_no_ticket_is_refused_with_what_to_do(text: str, why: str) -> None:
    with pytest.raises(CredentialError, match=why):
        verify_ticket(text, NOW)


@settings(max_examples=300)
@given(st.text() | st.text(max_size=60).map("ticket-".__add__) | st.binary(max_size=300).map(as_text))
def test_any_text_raises_the_one_error(text: str) -> None:
    with pytest.raises(CredentialError):
        assert isinstance(verify_ticket(text, NOW), Ticket)
