"""``policy check`` and ``policy explain``, and what ``run`` makes of policies."""

import json
from pathlib import Path

import pytest
import trio

from autonomy_trio import open_node
from autonomy_trio.errors import Denied
from autonomy_trio.messages import Untyped
from tests.cli.conftest import Call, Served
from tests.support.processes import serving_node

APP = "tests.support.app:agents"
RIGHT = """\
@id("small-hours")
forbid(principal, action == Action::"Add", resource is Counter)
unless { principal has cleared && principal.cleared || context.message.amount < 10 };

permit(principal, action == Action::"Fail", resource is Clumsy)
when { principal has level && principal.level > 3 };
"""
SENDING = 'forbid(principal, action == Action::"Send", resource) unless { resource has hipaa && resource.hipaa };\n'
EVADABLE = 'forbid(principal, action, resource is Counter)\nwhen { principal has team && principal.team == "x" };\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.cedar"
    path.write_text(RIGHT)
    return path


def test_check_lists_what_can_be_reached_and_what_policies_read(call: Call, file: Path, tmp_path: Path) -> None:
    file.write_text(RIGHT + SENDING)
    found = call("policy", "check", file, APP, "--home", tmp_path / "home")
    assert (found.code, found.err) == (0, f"{file} is right\n")
    assert (
        '  Add -> Total   from other nodes if principal.team == "payments" && context.message.amount <= 100, but never'
        " if !((principal has cleared) && principal.cleared) && !(context.message.amount < 10)\n"
    ) in found.out
    assert '  Fail -> None  from other nodes if principal.team == "payments" or if principal has level' in found.out
    assert "sending to other nodes  never if !((resource has hipaa) && resource.hipaa)\n" in found.out
    assert "attributes that senders may prove  cleared (bool), hipaa (bool), level (long), team (string)\n" in found.out
    assert not (tmp_path / "home").exists()


def test_check_refuses_what_hiding_an_attribute_evades_unless_it_may(call: Call, file: Path) -> None:
    file.write_text(EVADABLE)
    found = call("policy", "check", file, APP)
    assert found.is_one_sentence(2)
    assert found.err.startswith("Error: p.cedar:1: whoever hides principal.team evades this policy: say what must be ")
    found = call("policy", "check", file, APP, "--allow-evadable")
    assert found.code == 0
    assert "p.cedar:1  can be evaded by hiding principal.team\n" in found.out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("permit(principal, action, resource is Conter);", "p.cedar:1: there is no agent class 'Conter': did you mean"),
        ("\n\npermit(principal, action, resource)", "p.cedar:3: the policy that begins"),
        ("", "p.cedar has no policy"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line_for_every_command(
    call: Call, file: Path, text: str, complaint: str
) -> None:
    file.write_text(text)
    for command in (
        ("policy", "check", file, APP),
        ("policy", "explain", APP, "--policy", file),
        ("run", APP, "--policy", file),
        ("run", APP, "--policy", file, "--check"),
    ):
        found = call(*command)
        assert found.is_one_sentence(2)
        assert complaint in found.err


def test_a_misspelt_file_or_target_is_told(call: Call, file: Path, tmp_path: Path) -> None:
    assert "does not exist" in call("policy", "check", tmp_path / "none", APP).err
    assert call("policy", "check", file, "tests.support.app:agent").is_one_sentence(2)
    assert call("policy", "explain", "tests.support.app:agent").is_one_sentence(2)


def test_explain_says_for_each_message_whether_and_by_which_clause(call: Call, file: Path) -> None:
    found = call("policy", "explain", APP, "--policy", file, "--attribute", "team=payments")
    assert (found.code, found.err) == (0, "")
    assert found.out == (
        "counter\n"
        "  Add   perhaps  Counter.add permits if context.message.amount <= 100;"
        " small-hours forbids if !(context.message.amount < 10)\n"
        "  Echo  yes      permitted by Counter.echo\n"
        "  Hold  yes      permitted by Counter.hold\n"
        "  Note  yes      permitted by Counter.note\n"
        "  Read  yes      permitted by Counter.read\n"
        "  Scan  yes      permitted by Counter.scan\n"
        "\n"
        "clumsy\n"
        "  Fail  yes      permitted by Clumsy.fail\n"
        "\n"
        "meter\n"
        "  Count  yes      permitted by Meter.count\n"
        "  Tick   yes      permitted by Meter.tick\n"
        "\n"
    )
    found = call("policy", "explain", APP, "--policy", file, "--attribute", "level=1", "--id", "Iabc")
    assert (
        '  Fail  no       no permit: Clumsy.fail needs principal.team == "payments"; not proven: principal.team;'
        " p.cedar:5 needs principal.level > 3\n"
    ) in found.out


def test_explain_with_a_message_leaves_nothing_open(call: Call, file: Path) -> None:
    def explain(amount: object, *options: str) -> str:
        message = json.dumps({"Add": {"amount": amount}})
        return call("policy", "explain", APP, message, "--policy", file, "--attribute", "team=payments", *options).out

    assert explain(9) == "counter\n  Add  yes      permitted by Counter.add\n\n"
    assert explain(99).startswith("counter\n  Add  no       forbidden by small-hours (p.cedar:1): ")
    assert explain(99, "--attribute", "cleared=true") == "counter\n  Add  yes      permitted by Counter.add\n\n"
    assert "no permit: Counter.add needs context.message.amount <= 100" in explain(101, "--attribute", "cleared=true")
    assert "could not be evaluated: context.message.amount does not fit in 64 bits" in explain(2**63)


def test_explain_tells_an_agent_from_its_node_and_what_is_sealed_from_what_is_not(call: Call, file: Path) -> None:
    file.write_text(
        'forbid(principal == Principal::"Iagent", action, resource is Clumsy);\n'
        'forbid(principal, action, resource is Clumsy) when { principal.node == "Inode" && !context.sealed };\n'
    )

    def explain(*options: str) -> str:
        shown = call("policy", "explain", APP, "--policy", file, "--attribute", "team=payments", *options).out
        return shown[shown.index("clumsy") :].split("\n")[1]

    assert "forbidden by p.cedar:1" in explain("--id", "Iagent", "--node", "Inode")
    assert "forbidden by p.cedar:2" in explain("--id", "Iother", "--node", "Inode")
    assert "permitted by Clumsy.fail" in explain("--id", "Iother", "--node", "Inode", "--sealed")
    assert "forbidden by p.cedar:2" in explain("--id", "Inode")


def test_explain_says_whether_anything_may_be_sent_to_somebody(call: Call, file: Path) -> None:
    file.write_text(SENDING)
    assert call("policy", "explain", APP, "--policy", file).out.endswith(
        "\nsending to it  no       forbidden by p.cedar:1: !((resource has hipaa) && resource.hipaa);"
        " not proven: resource.hipaa\n"
    )
    found = call("policy", "explain", APP, "--policy", file, "--attribute", "hipaa=true")
    assert found.out.endswith("\nsending to it  yes      permitted by sending\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--attribute", "taem=x"], "no policy reads 'taem': did you mean 'team'?"),
        (["--attribute", "team=3"], "--attribute team is a long here, and policies read it as a string: write one"),
        (["--attribute", "team"], "--attribute 'team' is no attribute: write NAME=VALUE"),
        (['{"Ad": {}}'], "no agent of tests.support.app:agents takes 'Ad': did you mean 'Add'?"),
        (["Add"], "the message 'Add' is no JSON"),
        (['{"Add": {"amount": "x"}}', "--attribute", "team=payments"], "the message does not fit: "),
    ],
)
def test_explain_refuses_what_it_cannot_mean_in_one_sentence(call: Call, arguments: list[str], complaint: str) -> None:
    found = call("policy", "explain", APP, *arguments)
    assert found.is_one_sentence(2)
    assert complaint in found.err


def test_explain_knows_what_anchors_may_assert(call: Call, tmp_path: Path) -> None:
    anchor = call("authority", "init", "--attribute", "team=string", "--attribute", "level=long")
    (tmp_path / "anchors.toml").write_text(anchor.out)
    found = call("policy", "explain", APP, "--anchors", tmp_path / "anchors.toml", "--attribute", "badge=3")
    assert found.is_one_sentence(2)
    assert "no anchor may assert 'badge': there is level, team" in found.err
    (tmp_path / "home").mkdir()
    (tmp_path / "anchors.toml").rename(tmp_path / "home" / "anchors.toml")
    again = call("policy", "explain", APP, "--home", tmp_path / "home", "--attribute", "badge=3")
    assert again.err == found.err


async def test_run_decides_by_a_file_of_policies_and_writes_each_decision_down(
    served: Served, file: Path, tmp_path: Path
) -> None:
    audit = tmp_path / "audit.jsonl"
    options = ("--relay", served.url, "--home", str(tmp_path / "home"), "--policy", str(file), "--audit", str(audit))

    def run() -> None:
        file.write_text('permit(principal, action == Action::"Read", resource is Counter);')
        with serving_node(APP, *options, env=served.env) as (_, address):
            trio.run(ask, address)

    async def ask(address: str) -> None:
        async with open_node(relay=served.url, home=served.bob) as bob:
            assert await bob.ref(address).ask(Untyped("Read", {})) == 0
            with pytest.raises(Denied):
                await bob.ref(address).ask(Untyped("Echo", {"text": "x"}))

    await trio.to_thread.run_sync(run)
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["action"], line["allowed"]) for line in lines] == [("Read", True), ("Echo", False)]


def test_an_audit_log_that_cannot_be_written_stops_the_start(call: Call, tmp_path: Path) -> None:
    found = call("run", APP, "--listen", "127.0.0.1:0", "--audit", tmp_path / "no" / "audit")
    assert found.is_one_sentence(2)
    assert "cannot be opened: No such file or directory" in found.err
