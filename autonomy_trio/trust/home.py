"""The folder that keeps a node's secrets: who may read it, who has it open, and how a file in it is replaced.

The rules, each of them refused with the mend when it does not hold:

* the folder is the user's own with mode 0700, its files with mode 0600, and neither is reached through a symbolic link;
* one process has a home open at a time (flock, which also tells two openings in one process apart);
* a file is written under another name, created exclusively, flushed to the disk and renamed over the old one, so that
  whatever stops the process leaves the old file or the new one, whole.

Every check looks at what was opened, not at a path that may name another file by then.
"""

import fcntl
import os
import shlex
import stat
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, final

from autonomy_trio.errors import VaultError

FILE_BYTES_LIMIT: Final = 1024 * 1024
"""Most bytes of a file in a home: a vault with the longest marks of all its anchors takes three quarters of it."""
LOCK_NAME: Final = "vault.lock"
_FRESH: Final = ".new"
_OPEN_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Never through a link, never into a child process, and never waiting for the other end of a pipe."""


@final
class Home:
    """A home folder that this process holds open, and locked unless it only reads, until `close`.

    Attributes:
        path: the folder, as it was given.
    """

    def __init__(self, path: Path, *, create: bool, lock: bool = True, lock_name: str = LOCK_NAME) -> None:
        """Open and lock a home, creating the folder first when it is missing and `create` is set.

        Without `lock` it may only be read, beside a process that has it locked: files are replaced whole. With another
        `lock_name` the files that go with that lock may be written, while a node has the home.

        Raises:
            VaultError: the folder is missing, is not private, is not this user's, or is open already.
        """
        self.path = path
        self._is_locked = lock
        if create:
            self._create()
        with ExitStack() as opened:
            self._folder = self._open_folder()
            opened.callback(os.close, self._folder)
            _check_private(path, self._folder, folder=True)
            if lock:
                descriptor = self._open_lock(lock_name)
                opened.callback(os.close, descriptor)
                _check_private(path / lock_name, descriptor, folder=False)
                self._take(descriptor, lock_name)
            self._opened = opened.pop_all()

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    def close(self) -> None:
        """Give the home free for another process; closing twice does nothing."""
        self._folder = -1
        self._opened.close()

    def holds(self, name: str) -> bool:
        """Tell whether there is such a file, and that it is private, without reading it.

        Raises:
            VaultError: the file is a link, not a regular file, readable by others, or not this user's.
        """
        with self._opened_to_read(name) as descriptor:
            return descriptor is not None

    def read(self, name: str) -> bytes | None:
        """Read a file whole; None when there is none.

        Raises:
            VaultError: as for `holds`, or the file is too long.
        """
        with self._opened_to_read(name) as descriptor:
            if descriptor is None:
                return None
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(FILE_BYTES_LIMIT + 1)
        if len(data) > FILE_BYTES_LIMIT:
            raise VaultError(
                f"{self.path / name} has more than {FILE_BYTES_LIMIT} bytes, so it is damaged: restore a copy"
            )
        return data

    def write(self, name: str, data: bytes) -> None:
        """Replace a file whole, or create it, and return when it is on the disk.

        Raises:
            VaultError: the disk or the folder refuses, or the home is not locked; the old file is as it was.
        """
        if not self._is_locked:
            raise VaultError(f"the home {self.path} is only read here, beside a node that uses it: stop that first")
        fresh = name + _FRESH
        try:
            self._remove(fresh)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(self._open_file(fresh, flags), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise _refusal(self.path / fresh, exc) from None
        self.rename(fresh, name)

    def rename(self, old: str, new: str) -> None:
        """Rename a file over another and return when the folder is on the disk.

        Raises:
            VaultError: the disk or the folder refuses.
        """
        try:
            os.replace(old, new, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            os.fsync(self._folder)
        except OSError as exc:
            raise _refusal(self.path / new, exc) from None

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder)

    def _create(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            return  # what stands there is judged when it is opened
        except OSError as exc:
            raise _refusal(self.path, exc) from None

    def _open_folder(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _OPEN_FLAGS)
        except FileNotFoundError:
            raise VaultError(
                f"there is no home {self.path}: name another one, or run an agent with it once to create it"
            ) from None
        except OSError as exc:
            raise _refusal(self.path, exc) from None

    def _open_file(self, name: str, flags: int) -> int:
        return os.open(name, flags | _OPEN_FLAGS, 0o600, dir_fd=self._folder)

    @contextmanager
    def _opened_to_read(self, name: str) -> Generator[int | None]:
        try:
            descriptor = self._open_file(name, os.O_RDONLY)
        except FileNotFoundError:
            yield None
            return
        except OSError as exc:
            raise _refusal(self.path / name, exc) from None
        try:
            _check_private(self.path / name, descriptor, folder=False)
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_lock(self, name: str) -> int:
        try:
            return self._open_file(name, os.O_RDWR | os.O_CREAT)
        except OSError as exc:
            raise _refusal(self.path / name, exc) from None

    def _take(self, lock: int, name: str) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if name != LOCK_NAME:
                raise VaultError(
                    f"{self.path / name} is held by another process: try again when that has ended"
                ) from None
            raise VaultError(
                f"the home {self.path} is in use already: stop the node that uses it, or name another home"
            ) from None
        except OSError as exc:
            raise _refusal(self.path / name, exc) from None


def _check_private(place: Path, descriptor: int, *, folder: bool) -> None:
    status = os.fstat(descriptor)
    if not folder and not stat.S_ISREG(status.st_mode):
        raise VaultError(f"{place} is not a regular file: move it away and restore a copy")
    if status.st_uid != os.geteuid():
        raise VaultError(
            f"{place} belongs to user {status.st_uid}, not to {os.geteuid()} who runs this: name your own home"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        mend = f"chmod {'700' if folder else '600'} {shlex.quote(str(place))}"
        raise VaultError(f"{place} is open to other users (mode {mode:04o}): run `{mend}`")


def _refusal(place: Path, exc: OSError) -> VaultError:
    if os.path.islink(place):  # noqa: PTH114  Path.is_symlink raises where the folder may not be searched
        return VaultError(f"{place} is a symbolic link, which a home may not have: put what it points to in its place")
    return VaultError(f"{place} cannot be used: {exc.strerror or exc}")
