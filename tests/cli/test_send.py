"""``ask`` and ``send``, against a node that serves: whatever comes, it goes on serving."""

import functools
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from autonomy_trio.fabric.opening import open_node
from tests.cli.conftest import Call, Served, credential_for
from tests.support.processes import Process, free_port

pytestmark = pytest.mark.usefixtures("still_serves")

ADD = '{"Add": {"amount": 1}}'
SOMEBODY = f"I{'ab' * 32}"


def test_ask_prints_the_reply_as_json(call: Call, served: Served) -> None:
    first = call("ask", served.address, ADD, "--home", served.alice)
    second = call("ask", served.address, ADD, "--home", served.alice)
    assert (first.code, first.err) == (0, "")
    assert json.loads(second.out) == {"value": json.loads(first.out)["value"] + 1}


def test_an_address_without_relay_is_asked_over_the_one_that_is_named(call: Call, served: Served) -> None:
    short = served.address.removeprefix(f"{served.url}/")
    assert call("ask", short, ADD, "--relay", served.url, "--home", served.alice).code == 0
    found = call("ask", short, ADD, "--home", served.alice)
    assert found.is_one_sentence(2)
    assert "--relay ws://HOST:PORT" in found.err


def test_a_pinned_relay_must_be_the_pinned_one(call: Call, served: Served) -> None:
    assert call("ask", served.address, ADD, "--relay", served.pinned, "--home", served.alice).code == 0
    found = call("ask", served.address, ADD, "--relay", f"{served.url}#{SOMEBODY}", "--home", served.alice)
    assert found.is_one_sentence(1)
    assert "as pinned" in found.err


def test_send_says_what_was_sent_beside_an_empty_standard_output(call: Call, served: Served) -> None:
    sent = call("send", served.address, '{"Note": {"text": "good morning"}}', "--home", served.alice)
    assert (sent.code, sent.out) == (0, "")
    assert sent.err == f"sent Note to {served.address}\n"
    assert "good morning" in served.node.wait_line("text='good morning'")


def test_a_reply_cannot_command_the_terminal(call: Call, served: Served) -> None:
    message = json.dumps({"Echo": {"text": "\x1b[31m\x9b\u202e \U000e0001 é"}})
    answer = call("ask", served.address, message, "--home", served.alice)
    assert answer.out.rstrip("\n").isprintable()
    assert "é" in answer.out
    assert json.loads(answer.out) == "\x1b[31m\x9b\u202e \U000e0001 é"


def test_bytes_in_a_reply_are_printed_as_hex_digits(call: Call, served: Served) -> None:
    assert call("ask", served.address, '{"Scan": {}}', "--home", served.alice).out == '"00ff"\n'


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 601), (signal.SIGTERM, 602)])
def test_ctrl_c_ends_an_ask_with_a_word_and_exit_code_130_and_withdraws_it_at_once(
    served: Served, number: signal.Signals, seconds: int
) -> None:
    message = f'{{"Hold": {{"seconds": {seconds}}}}}'
    with Process("ask", served.address, message, "--home", str(served.alice), env=served.env) as asker:
        served.node.wait_line(f"seconds={seconds}")
        asker.signal(number)
        assert asker.wait() == 130
        assert (asker.out, asker.err.strip()) == ("", "stopped")
    served.node.wait_line(f"held={seconds}")


def test_one_who_can_prove_nothing_is_denied_and_the_serving_side_says_why(call: Call, served: Served) -> None:
    found = call("ask", served.address, ADD, "--home", served.bob)
    assert found.is_one_sentence(1)
    assert f"{served.address} denied Add" in found.err
    assert 'needs principal.team == "payments"' in served.node.wait_line("reason=denied")


def test_what_the_policy_does_not_let_pass_is_denied(call: Call, served: Served) -> None:
    found = call("ask", served.address, '{"Add": {"amount": 101}}', "--home", served.alice)
    assert found.is_one_sentence(1)
    assert "denied Add" in found.err


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "Add",
        "null",
        "3",
        "[]",
        "{}",
        "{'Add': {'amount': 3}}",
        "{Add: {amount: 3}}",
        '"Add"',
        '{"Add": 3}',
        '{"Add": null}',
        '{"Add": {"amount": 3}} {}',
        '{"Add": {"amount": 3}, "Read": {}}',
        '{"": {}}',
        r'{"\u001b[31m": {}}',
        r'{"\ud800": {}}',
        r'{"Echo": {"text": "\ud800"}}',
        '{"Add": {"amount": NaN}}',
        '{"Add": {"amount": 99999999999999999999}}',
        f'{{"Add": {{"amount": {"9" * 5000}}}}}',
        "[" * 100_000,
        f'{{"Echo": {{"text": "{"x" * 200_000}"}}}}',
    ],
    ids=lambda message: message[:30],
)
@pytest.mark.parametrize("command", ["ask", "send"])
def test_what_cannot_be_sent_is_one_short_sentence(call: Call, served: Served, command: str, message: str) -> None:
    found = call(command, served.address, message, "--home", served.alice)
    assert found.is_one_sentence(2)
    assert len(found.err) < 500


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('{"Ad": {"amount": 3}}', "you may send it Add, Echo, Hold, Note, Read, Scan"),
        ('{"Add": {"amount": "3"}}', "Add.amount"),
        ('{"Add": {"amount": 3.5}}', "Add.amount"),
        ('{"Add": {"amount": null}}', "Add.amount"),
        ('{"Add": {}}', "'amount'"),
        ('{"Add": {"amount": 3, "currency": "EUR"}}', "'currency'"),
    ],
)
def test_a_message_that_does_not_fit_is_told_where(call: Call, served: Served, message: str, said: str) -> None:
    found = call("ask", served.address, message, "--home", served.alice)
    assert found.is_one_sentence(1)
    assert said in found.err


@pytest.mark.parametrize(
    "spoil",
    [
        lambda address: "",
        lambda address: "counter",
        lambda address: address.removesuffix("/counter"),
        lambda address: address.removesuffix("counter"),
        lambda address: f"{address}/",
        lambda address: f"{address} ",
        lambda address: address.replace("/I", "/I0"),
        lambda address: address.replace("ws://", "http://"),
        lambda address: address.replace("ws://127.0.0.1:", "ws://127.0.0.1:9"),
        lambda address: f"{address}\x1b[31m",
    ],
)
def test_what_is_no_address_is_one_sentence(call: Call, served: Served, spoil: object) -> None:
    assert callable(spoil)
    assert call("ask", spoil(served.address), ADD, "--home", served.alice).is_one_sentence(2)


def test_an_agent_that_is_not_there_is_no_more_than_denied(call: Call, served: Served) -> None:
    found = call("ask", served.of("nobody"), ADD, "--home", served.alice)
    assert found.is_one_sentence(1)
    assert "no such agent" in found.err


@pytest.mark.parametrize("command", ["ask", "send"])
def test_a_relay_that_is_not_there_is_named(call: Call, served: Served, command: str) -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    found = call(command, f"{url}/{served.identifier}/counter", ADD, "--home", served.alice)
    assert found.is_one_sentence(1)
    assert f"{url} cannot be reached" in found.err
    assert "is a relay running there?" in found.err


@pytest.mark.parametrize("command", ["ask", "send"])
def test_a_node_that_is_not_there_is_named_and_nothing_is_called_sent(call: Call, served: Served, command: str) -> None:
    address = f"{served.url}/{SOMEBODY}/counter"
    found = call(command, address, ADD, "--home", served.alice)
    assert (found.code, found.out) == (1, "")
    assert address in found.err.splitlines()[-1]
    assert found.err.splitlines()[-1].startswith("Error: Add was not ")


def test_a_home_cannot_ask_itself(call: Call, served: Served) -> None:
    own = call("identity", "show", "--home", served.alice).out.strip()
    for command in ("ask", "send"):
        found = call(command, f"{served.url}/{own}/counter", ADD, "--home", served.alice)
        assert found.is_one_sentence(2)
        assert "--home" in found.err


def test_a_home_in_use_is_named(call: Call, served: Served) -> None:
    found = call("ask", served.address, ADD, "--home", served.server)
    assert found.is_one_sentence(1)
    assert f"{served.server} is in use already: stop the node that uses it, or name another home" in found.err


def test_a_credential_that_has_expired_is_named_with_its_issuer(call: Call, served: Served, tmp_path: Path) -> None:
    file = tmp_path / "old"
    file.write_text(credential_for(served.bob, served.server, at=time.time() - 7200))
    found = call("ask", served.address, ADD, "--home", served.bob, "--credential", file)
    assert found.is_one_sentence(1)
    assert f"{file} expired" in found.err
    assert served.identifier in found.err


def test_a_credential_of_somebody_else_is_refused_before_it_is_shown(call: Call, served: Served) -> None:
    file = served.alice / "credentials" / "payments"
    found = call("ask", served.address, ADD, "--home", served.bob, "--credential", file)
    assert found.is_one_sentence(1)
    assert f"{file} is about {served.alice_identifier}" in found.err


def test_a_credential_of_an_authority_that_nobody_trusts_proves_nothing(
    call: Call, served: Served, tmp_path: Path
) -> None:
    file = tmp_path / "self-made"
    file.write_text(credential_for(served.bob, tmp_path / "another authority"))
    found = call("ask", served.address, ADD, "--home", served.bob, "--credential", file)
    assert found.is_one_sentence(1)
    assert "denied Add" in found.err
    assert "is no trust anchor here: list it in the anchors file" in served.node.wait_line("credential not accepted")


def test_a_credential_that_holds_lets_its_subject_in(call: Call, served: Served, tmp_path: Path) -> None:
    home, file = tmp_path / "carol", tmp_path / "credential"
    file.write_text(credential_for(home, served.server))
    assert call("ask", served.address, ADD, "--home", home, "--credential", file).code == 0


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"-----BEGIN AUTONOMY CREDENTIAL-----\n"])
def test_a_file_that_is_no_credential_is_named(call: Call, served: Served, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "garbage"
    file.write_bytes(content)
    found = call("ask", served.address, ADD, "--home", served.bob, "--credential", file)
    assert found.is_one_sentence(1)
    assert str(file) in found.err


def test_a_credential_that_is_not_there_is_a_wrong_use(call: Call, served: Served, tmp_path: Path) -> None:
    missing = call("ask", served.address, ADD, "--home", served.bob, "--credential", tmp_path / "missing")
    assert missing.is_one_sentence(2)
    assert "does not exist" in missing.err


def test_an_expired_credential_in_the_home_is_told_and_hinders_nothing(
    call: Call, served: Served, tmp_path: Path
) -> None:
    home = tmp_path / "dave"
    old = credential_for(home, served.server, at=time.time() - 7200)
    (home / "credentials").mkdir()
    (home / "credentials" / "old").write_text(old)
    (home / "credentials" / "payments").write_text(credential_for(home, served.server))
    found = call("ask", served.address, ADD, "--home", home)
    assert found.code == 0
    assert "credential not shown" in found.err


def test_an_agent_that_fails_is_told_apart_from_one_that_was_not_reached(call: Call, served: Served) -> None:
    found = call("ask", served.of("clumsy"), '{"Fail": {"text": "out of paper"}}', "--home", served.alice)
    assert found.is_one_sentence(1)
    assert "clumsy failed on Fail: the log of its node says why" in found.err
    assert "out of paper" not in found.err
    served.node.wait_line("ValueError: out of paper")


def test_an_answer_that_takes_too_long_is_an_unknown_outcome(
    call: Call, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["autonomy_trio.cli.send"]  # the package has the command of this name in its place
    monkeypatch.setattr(module, "open_node", functools.partial(open_node, ask_limit=1.0))
    found = call("ask", served.address, '{"Hold": {"seconds": 600}}', "--home", served.alice)
    assert found.is_one_sentence(1)
    assert f"{served.address} did not answer Hold in 1 s: it may have had effects" in found.err
