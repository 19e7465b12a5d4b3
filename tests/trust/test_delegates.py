import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import IdentityError
from autonomy_trio.trust.delegates import (
    AgentChange,
    AgentKey,
    Delegate,
    DelegateRecord,
    derive_agent_key,
    make_delegate,
    verify_delegate,
)
from autonomy_trio.trust.identity import make_history
from autonomy_trio.trust.records import Signed, SigningKey, digest, sign_record

SECRET = bytes(range(32))
NODE = make_history(bytes(32)).identifier
OTHER_NODE = make_history(SECRET).identifier
NOW = 1_700_000_000
WEEK = 7 * 24 * 3600


@pytest.fixture(scope="module")
def agent() -> AgentKey:
    return derive_agent_key(SECRET, "counter", NODE)


def delegate_by(agent: AgentKey, signer: SigningKey | None = None, **fields: object) -> Signed:
    values = {
        "agent": agent.identifier,
        "node": NODE,
        "node_seq": 0,
        "not_before": NOW,
        "expires": NOW + WEEK,
    } | fields
    return sign_record(signer or agent.key, "delegate", DelegateRecord(**values))


def verified(agent: AgentKey, delegate: Signed, **known: object) -> Delegate:
    return verify_delegate(agent.change, delegate, **{"node": NODE, "node_seq": 0, "now": NOW} | known)


def test_an_agent_has_one_identity_for_good_and_every_name_and_node_and_secret_another(agent: AgentKey) -> None:
    again = derive_agent_key(SECRET, "counter", NODE)
    assert (again.identifier, again.change) == (agent.identifier, agent.change)
    others = [
        derive_agent_key(SECRET, "counter2", NODE),
        derive_agent_key(SECRET, "", NODE),
        derive_agent_key(SECRET, "counter", OTHER_NODE),
        derive_agent_key(bytes(32), "counter", NODE),
    ]
    assert len({agent.identifier, *(other.identifier for other in others)}) == 5


def test_the_bytes_of_an_agent_are_these_for_good(agent: AgentKey) -> None:
    assert agent.identifier == digest("h-id", agent.change.body)
    assert agent.identifier.hex() == "04dae8b059e26e6a1601fcd02baccb7f3b0070d20135717a9b6685b0dc6816ed"
    assert (
        digest("h-body", delegate_by(agent).body).hex()
        == "6f813f2a972daf18925e60c79e3ea76c06c0ba31ecdf2ebe1f65b5f0203abaa5"
    )


def test_a_node_introduces_its_agent_for_a_week(agent: AgentKey) -> None:
    delegate = make_delegate(agent, 3, NOW + 0.9)
    found = verified(agent, delegate, node_seq=3)
    assert found == Delegate(agent.identifier, agent.key.public, NODE, 3, NOW, NOW + WEEK)
    assert verified(agent, delegate, node_seq=3, now=NOW + WEEK - 0.1) == found
    with pytest.raises(IdentityError, match=f"delegate of agent I{agent.identifier.hex()} expired 0 s ago"):
        verified(agent, delegate, node_seq=3, now=NOW + WEEK)


def test_a_delegate_may_begin_59_seconds_from_now_and_not_61(agent: AgentKey) -> None:
    verified(agent, delegate_by(agent), now=NOW - 59)
    with pytest.raises(IdentityError, match="begins in 61 s"):
        verified(agent, delegate_by(agent), now=NOW - 61)


def test_a_delegate_for_longer_than_a_week_is_refused(agent: AgentKey) -> None:
    with pytest.raises(IdentityError, match="1 to 604800 s are allowed"):
        verified(agent, delegate_by(agent, expires=NOW + WEEK + 1))


def test_an_agents_delegate_shown_by_another_node_is_refused(agent: AgentKey) -> None:
    with pytest.raises(IdentityError, match="is of another node than"):
        verified(agent, delegate_by(agent), node=OTHER_NODE)
    with pytest.raises(IdentityError, match="is of another node than"):
        verified(agent, delegate_by(agent, node=OTHER_NODE), node=OTHER_NODE)
    with pytest.raises(IdentityError, match="is of another node than"):
        verified(agent, delegate_by(agent, node=OTHER_NODE))


def test_a_node_that_steals_an_agents_key_cannot_move_the_agent(agent: AgentKey) -> None:
    moved = derive_agent_key(SECRET, "counter", OTHER_NODE)
    with pytest.raises(IdentityError, match="delegate shown with agent"):
        verify_delegate(moved.change, delegate_by(agent, node=OTHER_NODE), node=OTHER_NODE, node_seq=0, now=NOW)


@pytest.mark.parametrize("seq", [0, 2])
def test_a_delegate_for_another_sequence_of_the_node_is_refused(agent: AgentKey, seq: int) -> None:
    with pytest.raises(IdentityError, match=f"is for sequence {seq} of its node, which is at 1"):
        verified(agent, delegate_by(agent, node_seq=seq), node_seq=1)


def test_a_delegate_of_another_agent_is_refused(agent: AgentKey) -> None:
    other = derive_agent_key(SECRET, "other", NODE)
    with pytest.raises(IdentityError, match=f"is of I{other.identifier.hex()}"):
        verified(agent, delegate_by(other))
    with pytest.raises(IdentityError, match="not signed by the agent"):
        verified(agent, delegate_by(agent, other.key))


def test_a_signature_for_another_purpose_delegates_nothing(agent: AgentKey) -> None:
    body = delegate_by(agent).body
    with pytest.raises(IdentityError, match="not signed by the agent"):
        verified(agent, Signed(body, agent.key.sign("attest", body)))


def test_an_agent_change_not_signed_by_its_own_key_is_refused(agent: AgentKey) -> None:
    record = msgspec.msgpack.decode(agent.change.body, type=AgentChange)
    forged = sign_record(SigningKey(SECRET), "change", record)
    with pytest.raises(IdentityError, match="not signed by the key it names"):
        verify_delegate(forged, delegate_by(agent), node=NODE, node_seq=0, now=NOW)


def test_a_nodes_change_is_no_agents_and_an_agents_is_no_nodes(agent: AgentKey) -> None:
    history = make_history(SECRET)
    with pytest.raises(IdentityError, match="not an agent's change"):
        verify_delegate(history.changes[0], delegate_by(agent), node=NODE, node_seq=0, now=NOW)


def test_any_bit_flipped_is_refused(agent: AgentKey) -> None:
    delegate = make_delegate(agent, 0, NOW)
    for signed, refused in (
        (agent.change, lambda wrong: verify_delegate(wrong, delegate, node=NODE, node_seq=0, now=NOW)),
        (delegate, lambda wrong: verified(agent, wrong)),
    ):
        for part in ("body", "signature"):
            data = getattr(signed, part)
            for index in range(len(data)):
                wrong = data[:index] + bytes([data[index] ^ 1 << index % 8]) + data[index + 1 :]
                with pytest.raises(IdentityError):
                    refused(msgspec.structs.replace(signed, **{part: wrong}))


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_raise_the_one_error(change: bytes, delegate: bytes) -> None:
    signature = bytes(64)
    with pytest.raises(IdentityError):
        verify_delegate(Signed(change, signature), Signed(delegate, signature), node=NODE, node_seq=0, now=NOW)


def test_a_secret_of_a_wrong_length_makes_no_agent() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        derive_agent_key(bytes(31), "counter", NODE)


def test_the_repr_of_an_agents_key_shows_no_secret(agent: AgentKey) -> None:
    secret = agent.key._secret
    assert secret.hex() not in repr(agent)
    assert repr(secret)[2:-1] not in repr(agent)
