"""The identities of a node's agents: made when they first speak, and made again as seldom as can be."""

from typing import TYPE_CHECKING, cast

import pytest
from attrs import define, frozen

from autonomy_trio.errors import NotDelivered
from autonomy_trio.fabric.identity.credentials import Wallet
from autonomy_trio.fabric.identity.voices import MOST_VOICES, PACE, Pace, Voice, Voices
from autonomy_trio.trust.credentials import issue, to_text
from autonomy_trio.trust.delegates import DELEGATE_LIFE, verify_delegate
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import (
    CHECKS_BURST,
    CHECKS_PER_INTRODUCTION,
    CHECKS_PER_SECOND,
    INTRODUCTIONS,
    LARGEST_INDEX,
    PRESENTATIONS,
)
from autonomy_trio.wire.introductions import Speaker

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell

NOW = 1_800_000_000.0
DAY = 86_400


@frozen
class _Spec:
    inherit: bool = True


@frozen
class _Cell:
    name: str
    spec: _Spec = _Spec()


@define(eq=False)
class Node:
    """A vault, its wallet and its voices, at a time of their own."""

    vault: Vault
    wallet: Wallet
    now: float = NOW

    @property
    def voices(self) -> Voices:
        return Voices(self.vault, self.wallet, lambda: self.now)


@pytest.fixture
def node() -> Node:
    vault = Vault.in_memory()
    return Node(vault, Wallet(vault.identifier, None))


def voice(voices: Voices, name: str = "clerk", *, inherit: bool = True) -> Voice:
    made = voices.of(cast("Cell", _Cell(name, _Spec(inherit))))
    assert isinstance(made, Voice)
    return made


def test_code_outside_of_agents_speaks_for_the_node(node: Node) -> None:
    assert node.voices.of(None) == 0


def test_a_voice_costs_no_key_until_it_speaks_and_is_the_same_one_then(node: Node) -> None:
    voices = node.voices
    made = voice(voices)
    assert made.made is None
    assert made == LARGEST_INDEX
    assert voice(voices) is made
    assert voice(voices, inherit=False) is not made
    assert voices.speaker(made) is voices.speaker(made)


def test_an_agent_is_introduced_by_its_node_under_the_identity_it_always_has(node: Node) -> None:
    voices = node.voices
    shown = voices.speaker(voice(voices)).introduction
    found = verify_delegate(
        shown.change, shown.delegate, node=node.vault.identifier, node_seq=node.vault.seq, now=node.now
    )
    assert found.agent == shown.agent == node.vault.agent_identifier("clerk")
    assert voices.speaker(voice(voices, "clerk/3")) is voices.speaker(voice(voices))


@pytest.mark.parametrize("later", [DELEGATE_LIFE / 2, -1.0])
def test_a_delegate_is_made_again_at_half_its_life_and_when_the_clock_was_set_back(node: Node, later: float) -> None:
    voices = node.voices
    first = voices.speaker(voice(voices))
    node.now += later / 2 if later > 0 else 0
    assert voices.speaker(voice(voices)) is first
    node.now = NOW + later
    second = voices.speaker(voice(voices))
    assert second is not first
    assert second.introduction.agent == first.introduction.agent
    assert second.introduction.delegate != first.introduction.delegate


def test_a_changed_credential_introduces_the_agent_again_and_another_ones_does_not(node: Node) -> None:
    voices = node.voices
    first = voices.speaker(voice(voices))
    for name, validity in (("other", 60), ("clerk", 60), ("clerk", 3600)):
        agent = node.vault.agent_identifier(name)
        text = to_text(issue(node.vault, subject=agent, attributes={"a": validity}, now=node.now, validity=validity))
        node.wallet.add(text, node.now, agent)
        speaker = voices.speaker(voice(voices))
        assert (speaker is first) == (name == "other")
        assert speaker.introduction is first.introduction
    assert len(voices.speaker(voice(voices)).presentations) == 2
    node.now += 61
    assert len(voices.speaker(voice(voices)).presentations) == 1


def test_no_more_credentials_are_shown_than_an_introduction_has_room_for(node: Node) -> None:
    agent = node.vault.agent_identifier("clerk")
    for number in range(PRESENTATIONS + 2):
        attributes = {f"a{number}": number}
        node.wallet.add(to_text(issue(node.vault, subject=agent, attributes=attributes, now=NOW)), NOW, agent)
    voices = node.voices
    assert len(voices.speaker(voice(voices)).presentations) == PRESENTATIONS


def test_a_node_that_cannot_vouch_any_more_says_so(node: Node) -> None:
    voices = node.voices
    node.vault.close()
    with pytest.raises(NotDelivered, match="clerk cannot speak to other nodes: the vault of"):
        voices.speaker(voice(voices))


def test_the_voices_that_are_kept_are_bounded_and_the_one_used_last_stays(node: Node) -> None:
    voices = node.voices
    first = voice(voices, "first")
    for number in range(MOST_VOICES - 1):
        voice(voices, str(number))
    assert voice(voices, "first") is first
    voice(voices, "one more")
    assert len(voices) == MOST_VOICES
    assert voice(voices, "first") is first


def test_agents_are_introduced_at_the_pace_at_which_they_are_verified(node: Node) -> None:
    pace, made = Pace(), node.voices.speaker(voice(node.voices)).introduction
    speakers = [Speaker(made, inherits=True) for _ in range(INTRODUCTIONS)]
    burst = int(PACE * CHECKS_BURST / CHECKS_PER_INTRODUCTION)
    rate = int(PACE * CHECKS_PER_SECOND / CHECKS_PER_INTRODUCTION)
    assert sum(pace.may_speak(each, 0.0) for each in speakers) == burst
    assert all(pace.may_speak(each, 0.0) for each in speakers[:burst])
    assert sum(pace.may_speak(each, 1.0) for each in speakers) == burst + rate
    pace.forget()
    assert not pace.may_speak(speakers[0], 1.0)


def test_what_is_known_to_be_verified_is_bounded(node: Node) -> None:
    pace, made = Pace(), node.voices.speaker(voice(node.voices)).introduction
    first = Speaker(made, inherits=True)
    assert pace.may_speak(first, 0.0)
    for second in range(INTRODUCTIONS):
        assert pace.may_speak(Speaker(made, inherits=True), float(second))
    assert pace.may_speak(first, float(INTRODUCTIONS)), "it is introduced again"
    assert len(pace._known) == INTRODUCTIONS
