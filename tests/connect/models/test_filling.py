"""A model's text as an object of a class."""

import pytest
from attrs import frozen

from autonomy_trio import open_node
from autonomy_trio.connect.models import Model, ModelFailed, Said, fill
from autonomy_trio.errors import DeclarationError
from tests.support.models import Scripted, say, scripted


@frozen
class Ticket:
    urgent: bool
    words: tuple[str, ...]


def model(server: Scripted) -> Model:
    return Model("openai:m", base_url=server.url)


GOOD = '{"urgent": true, "words": ["bike"]}'


async def test_a_text_becomes_an_object_and_the_vendor_is_told_its_schema() -> None:
    async with scripted(say(GOOD)) as server, open_node([model(server)]) as node:
        found = await fill(node.ref("m", Model), Ticket, "My bike!", most_tokens=50, temperature=0)
    assert found == Ticket(urgent=True, words=("bike",))
    body = server.seen[0].body
    assert (body["max_tokens"], body["temperature"]) == (50, 0)
    shape = body["response_format"]["json_schema"]
    assert shape["strict"] is True
    assert shape["schema"]["required"] == ["urgent", "words"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Here you are!", "it is no JSON"),
        ('{"urgent": "yes", "words": []}', "expected bool, got str @ Ticket.urgent"),
        ('{"urgent": true}', "'words' is missing @ Ticket"),
        ('{"urgent": true, "words": [], "more": 1}', "unknown 'more' @ Ticket"),
        ("[]", "Ticket"),
        ("[" * 50_000, "it is no JSON"),
    ],
)
async def test_a_text_that_does_not_fit_is_shown_to_the_model_once_with_what_is_wrong(text: str, why: str) -> None:
    async with scripted(say(text), say(GOOD)) as server, open_node([model(server)]) as node:
        assert await fill(node.ref("m", Model), Ticket, "My bike!") == Ticket(urgent=True, words=("bike",))
    first, second, third = server.seen[1].body["messages"]
    assert (first["content"], second) == ("My bike!", {"role": "assistant", "content": text})
    assert why in third["content"]
    assert '"required": ["urgent", "words"]' in third["content"]


async def test_a_second_text_that_does_not_fit_is_an_error_that_says_why() -> None:
    async with scripted(say("no"), say('{"urgent": 1, "words": []}')) as server, open_node([model(server)]) as node:
        with pytest.raises(ModelFailed) as caught:
            await fill(node.ref("m", Model), Ticket, "My bike!")
    assert caught.value.kind == "misfit"
    assert str(caught.value) == "what the model wrote is no Ticket, twice: expected bool, got int @ Ticket.urgent"
    assert len(server.seen) == 2


async def test_a_text_that_was_cut_off_is_told_of_as_such() -> None:
    async with scripted(say('{"urgent"', stopped="length")) as server, open_node([model(server)]) as node:
        with pytest.raises(ModelFailed, match="it stopped at the most_tokens that it may write"):
            await fill(node.ref("m", Model), Ticket, [Said("user", "My bike!")])
    assert len(server.seen) == 2


async def test_a_model_that_refuses_is_not_asked_again() -> None:
    async with scripted(say("I will not", stopped="content_filter")) as server, open_node([model(server)]) as node:
        with pytest.raises(ModelFailed) as caught:
            await fill(node.ref("m", Model), Ticket, "My bike!")
    assert caught.value.kind == "refused"
    assert len(server.seen) == 1


async def test_a_class_that_no_message_carries_is_refused_before_anything_is_sent() -> None:
    async with scripted(say(GOOD)) as server, open_node([model(server)]) as node:
        with pytest.raises(DeclarationError):
            await fill(node.ref("m", Model), complex, "My bike!")
    assert server.seen == []
