import os
import re
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autonomy_trio.errors import VaultError
from autonomy_trio.trust.home import FILE_BYTES_LIMIT, LOCK_NAME, Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    opened = Home(tmp_path / "home", create=True)
    yield opened
    opened.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def mend(error: pytest.ExceptionInfo[VaultError]) -> None:
    command = re.search("run `(.*)`", str(error.value))
    subprocess.run(shlex.split(command[1]), check=True)


def test_a_new_home_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        opened = Home(tmp_path / "deep" / "home", create=True)
        opened.write("file", b"data")
        opened.close()
    finally:
        os.umask(before)
    assert mode(opened.path) == 0o700
    assert {path.name: mode(path) for path in opened.path.iterdir()} == {LOCK_NAME: 0o600, "file": 0o600}


@pytest.mark.parametrize("looser", [0o701, 0o710, 0o704, 0o755, 0o777])
def test_a_home_open_to_others_is_refused_with_the_command_that_mends_it(tmp_path: Path, looser: int) -> None:
    path = tmp_path / "a home"
    path.mkdir()
    path.chmod(looser)
    with pytest.raises(VaultError, match=f"mode {looser:04o}") as caught:
        Home(path, create=True)
    mend(caught)
    Home(path, create=True).close()


@pytest.mark.parametrize("looser", [0o640, 0o604, 0o622, 0o666])
@pytest.mark.parametrize("name", ["file", LOCK_NAME])
def test_a_file_open_to_others_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, looser: int, name: str
) -> None:
    opened = Home(tmp_path / "home", create=True)
    opened.write("file", b"data")
    opened.close()
    (opened.path / name).chmod(looser)

    def read() -> bytes | None:
        again = Home(opened.path, create=False)
        try:
            return again.holds("file") and again.read("file")
        finally:
            again.close()

    with pytest.raises(VaultError, match=f"{name} is open to other users") as caught:
        read()
    mend(caught)
    assert read() == b"data"


def test_a_home_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "home").symlink_to("real")
    with pytest.raises(VaultError, match="home is a symbolic link"):
        Home(tmp_path / "home", create=True)
    assert list((tmp_path / "real").iterdir()) == []


def test_a_home_below_a_symbolic_link_is_as_good_as_any(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    Home(tmp_path / "link" / "home", create=True).close()


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_a_file_that_is_a_symbolic_link_is_refused(home: Home, tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").write_bytes(b"data")
    (home.path / "file").symlink_to(tmp_path / target)
    for look in (home.read, home.holds):
        with pytest.raises(VaultError, match="file is a symbolic link"):
            look("file")


def test_a_lock_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VaultError, match="is a symbolic link"):
        Home(tmp_path / "home", create=True)
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_written_goes_through_no_link(home: Home, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    for name in ("file", "file.new"):
        (home.path / name).symlink_to(tmp_path / "elsewhere")
    home.write("file", b"ours")
    assert (tmp_path / "elsewhere").read_bytes() == b"theirs"
    assert home.read("file") == b"ours"


def test_a_home_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Home(tmp_path / "home", create=True).close()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(VaultError, match=f"belongs to user {user}, not to {user + 1}"):
        Home(tmp_path / "home", create=True)


@pytest.mark.parametrize("make", ["folder", "pipe", "socket"])
def test_what_is_not_a_regular_file_is_refused_without_waiting(
    home: Home, make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = home.path / "file"
    if make == "folder":
        place.mkdir(mode=0o700)
    elif make == "pipe":
        os.mkfifo(place, 0o600)
    else:
        monkeypatch.chdir(home.path)  # the name of a socket may not be as long as a path
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("file")
        place.chmod(0o600)
    with pytest.raises(VaultError, match=r"file (is not a regular file|cannot be used)"):
        home.read("file")


def test_a_path_with_a_file_in_its_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "home", tmp_path / "file" / "deep" / "home"):
        with pytest.raises(VaultError, match="cannot be used: Not a directory"):
            Home(path, create=True)


def test_a_missing_home_is_made_only_on_request(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="there is no home"):
        Home(tmp_path / "home", create=False)
    assert not (tmp_path / "home").exists()


def test_a_home_is_open_once_at_a_time_even_in_one_process(home: Home) -> None:
    with pytest.raises(VaultError, match=f"the home {home.path} is in use already: stop the node that uses it"):
        Home(home.path, create=False)
    home.close()
    Home(home.path, create=False).close()


def test_a_home_that_another_process_has_open_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from autonomy_trio.trust.home import Home\n"
        "home = Home(Path(sys.argv[1]), create=True); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, tmp_path / "home"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(VaultError, match="in use already"):
            Home(tmp_path / "home", create=True)
        process.kill()
    Home(tmp_path / "home", create=True).close()


def test_a_folder_that_knows_no_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(VaultError, match=f"{LOCK_NAME} cannot be used: No locks available"):
        Home(tmp_path / "home", create=True)


def test_a_refused_opening_leaves_no_descriptor_open(tmp_path: Path, home: Home) -> None:
    (tmp_path / "loose").mkdir(mode=0o755)
    before = sorted(Path("/dev/fd").iterdir())
    for path in (home.path, tmp_path / "loose", tmp_path / "missing"):
        with pytest.raises(VaultError):
            Home(path, create=False)
    assert sorted(Path("/dev/fd").iterdir()) == before


def test_closing_twice_does_nothing(home: Home) -> None:
    home.close()
    home.close()
    assert repr(home) == f"Home('{home.path}')"


def test_a_closed_home_neither_reads_nor_writes(home: Home) -> None:
    home.close()
    for use in (lambda: home.read("file"), lambda: home.write("file", b""), lambda: home.rename("file", "other")):
        with pytest.raises(VaultError, match="cannot be used: Bad file descriptor"):
            use()


def test_what_is_written_is_read_back_and_what_is_not_there_is_none(home: Home) -> None:
    assert home.read("file") is None
    assert not home.holds("file")
    for data in (b"one", b"two"):
        home.write("file", data)
        assert home.read("file") == data
    assert home.holds("file")


def test_a_file_past_its_limit_is_refused(home: Home) -> None:
    home.write("file", bytes(FILE_BYTES_LIMIT))
    assert home.read("file") == bytes(FILE_BYTES_LIMIT)
    home.write("file", bytes(FILE_BYTES_LIMIT + 1))
    with pytest.raises(VaultError, match="more than 1048576 bytes"):
        home.read("file")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_stops_before_the_rename_leaves_the_old_file(
    home: Home, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    home.write("file", b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(VaultError, match="No space left on device"):
            home.write("file", b"new")
    assert home.read("file") == b"old"
    home.write("file", b"newer")
    assert home.read("file") == b"newer"
    assert {path.name for path in home.path.iterdir()} == {LOCK_NAME, "file"}


def test_what_is_written_is_on_the_disk_before_it_gets_its_name(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _name=name, _real=real, **k: (steps.append(_name), _real(*a, **k))[1])
    home.write("file", b"data")
    assert steps == ["fsync", "replace", "fsync"]
