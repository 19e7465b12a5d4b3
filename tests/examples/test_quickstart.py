"""The quickstart, as the README starts it."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, ROOT, Process, environment, run_once


def readme_lines() -> list[str]:
    """What the README shows of it, line by line."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (
        each for each in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if "is back" in each
    )
    return block.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_shows_one_allowed_and_one_denied_and_can_be_asked_from_outside_until_it_is_stopped(
    tmp_path: Path, number: signal.Signals
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = environment(tmp_path, TMPDIR=str(temporary))
    with Process("run", "examples.quickstart:agents", env=env) as node:
        assert node.wait_line("alice redeemed a ticket").endswith("Total(value=3)")
        assert node.wait_line("alice opens the stream").endswith("[1, 2, 3]")
        assert 'denied, no permit: Counter.add needs principal.team == "payments"' in node.wait_line(
            "bob can prove nothing"
        )
        assert node.wait_line("alice is back").endswith("Note(text='call me')")
        assert node.out.index("alice is away") < node.out.index("alice is back")
        node.wait_line("/bob")
        assert set(readme_lines()) <= set(node.out.splitlines())
        pasted = [paste(line, env) for line in re.findall(r"^ +(python -m autonomy_trio .*)$", node.out, re.MULTILINE)]
        alice, reader, bob = pasted
        assert (alice.returncode, alice.stdout, alice.stderr) == (0, '{"value": 7}\n', "")
        assert (reader.returncode, reader.stdout, reader.stderr) == (0, "1\n2\n3\n4\n5\n", "")
        assert (bob.returncode, bob.stdout) == (1, "")
        assert "denied Add" in bob.stderr
        assert bob.stderr.count("\n") == 1

        node.signal(number)
        assert node.wait() == 0
        assert "Traceback" not in node.out + node.err
        assert node.err.endswith("stopped\n")
    assert list(temporary.iterdir()) == []
    home = re.search(r"^home  (.*)$", node.out, re.MULTILINE)
    assert home is not None
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert left
    assert all(file.parent == Path(home[1]) for file in left), "something is left behind beside the home it names"


def test_two_of_them_run_side_by_side_with_a_home_each(tmp_path: Path) -> None:
    env = environment(tmp_path, TMPDIR=str(tmp_path))
    with Process("run", "examples.quickstart:agents", env=env) as first:
        first.wait_line("/bob")
        found = run_once("run", "examples.quickstart:agents", env=env)
        assert found.returncode == 1
        assert "is in use already" in found.stderr
        with Process("run", "examples.quickstart:agents", "--home", str(tmp_path / "another"), env=env) as second:
            second.wait_line("/bob")


def paste(line: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a line as a shell would, in a second terminal."""
    return subprocess.run(
        ["bash", "-c", line], env=env, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=False
    )
