"""Where event files lie: in a directory of this machine, or in a store that fsspec knows."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import struct
from collections.abc import Iterator
from typing import IO, Protocol

from keras_initkit._compat import describe_error
from keras_initkit._random_state import random_state_kept

_SEGMENT = 2**20  # bytes of an object, after which the next one begins
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "oss", "oci", "memory"}  # without directories


def url_protocol(path: str) -> str:
    """Returns the protocol of a URL; an empty string for a path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", path)
    return match[1] if match else ""


def join(directory: str, *names: str) -> str:
    """Joins a path or a URL with names below it."""
    return (posixpath if url_protocol(directory) else os.path).join(directory, *names)


class Folder(Protocol):
    """What an `EventLog` needs of the place where its files lie."""

    path: str

    def names(self) -> list[str]:
        """Returns the names of the files."""

    def create(self, name: str) -> None:
        """Makes an empty file; a `FileExistsError` says that there is one."""

    def append(self, name: str, data: bytes) -> None:
        """Writes all data at the end of the file, or nothing."""

    def is_full(self) -> bool:
        """Returns whether the next data belong in a new file."""

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading."""

    def remove(self, name: str) -> None:
        """Removes a file."""


def open_folder(directory: str | os.PathLike[str]) -> Folder:
    """Returns a directory, which is made if it is missing, or the place of a URL."""
    path = os.fspath(directory)
    return RemoteFolder(path) if url_protocol(path) else LocalFolder(path)


class LocalFolder:
    """A directory. Files are opened for each write: none stays open, and one that was removed is noticed."""

    def __init__(self, directory: str):
        self.path = os.path.abspath(directory)  # training may change the working directory
        os.makedirs(self.path, exist_ok=True)

    def names(self) -> list[str]:
        """Returns the names of the files."""
        return os.listdir(self.path)

    def create(self, name: str) -> None:
        """Makes an empty file; a `FileExistsError` says that there is one."""
        open(os.path.join(self.path, name), "xb").close()

    def append(self, name: str, data: bytes) -> None:
        """Writes all data at the end of the file, or nothing."""
        append_to_file(os.path.join(self.path, name), data)

    def is_full(self) -> bool:
        """Returns False: a file grows."""
        return False

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading."""
        return open(os.path.join(self.path, name), "rb")

    def remove(self, name: str) -> None:
        """Removes a file."""
        os.remove(os.path.join(self.path, name))


class RemoteFolder:
    """A place in a store where files are replaced whole and nothing can be appended.

    What a file has so far stays in memory and is sent again with each write, up to a megabyte; then the next file
    begins. Each write is in the store when the call returns. Every error is an `OSError`.
    """

    def __init__(self, url: str):
        import fsspec

        with _store_access():
            self._system, root = fsspec.core.url_to_fs(url)
            self.path = url
            if url_protocol(url) not in _OBJECT_STORES:  # where this may make a bucket
                self._system.makedirs(root, exist_ok=True)
        self._name, self._content = "", b""

    def names(self) -> list[str]:
        """Returns the names of the files."""
        with _store_access():
            self._system.invalidate_cache()
            try:
                found = self._system.ls(self.path, detail=False)
            except FileNotFoundError:  # nothing has been written below it
                return []
        return [posixpath.basename(path.rstrip("/")) for path in found]

    def create(self, name: str) -> None:
        """Begins a file, which the first data make."""
        self._name, self._content = name, b""

    def append(self, name: str, data: bytes) -> None:
        """Sends the file with these data at its end."""
        content = self._content + data
        with _store_access():
            self._system.pipe_file(join(self.path, name), content)
        self._content = content

    def is_full(self) -> bool:
        """Returns whether the next data belong in a new file."""
        return len(self._content) >= _SEGMENT

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading."""
        with _store_access():
            return self._system.open(join(self.path, name), "rb")

    def remove(self, name: str) -> None:
        """Removes a file."""
        with _store_access():
            self._system.rm_file(join(self.path, name))


@contextlib.contextmanager
def _store_access() -> Iterator[None]:
    """Raises what a store's client raises as the error of a file system, and restores the random state.

    Clients draw from it how long they wait before they try again.
    """
    try:
        with random_state_kept():
            yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, describe_error(error)) from error


def append_to_file(path: str, data: bytes) -> None:
    """Writes all data at a file's end or nothing: a disk that fills up takes the beginning and refuses the rest."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(file).st_size
        try:
            while data:
                data = data[os.write(file, data) :]
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def read_records(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the records of an event file up to its end or to one that is torn: length, checksum, data, checksum."""
    while len(head := file.read(12)) == 12:
        (length,) = struct.unpack("<Q", head[:8])
        if len(record := file.read(length + 4)) < length + 4:
            return
        yield record[:-4]


def remote_problem(path: str) -> str | None:
    """Returns why a URL cannot be written to with what is installed; `None` if it can."""
    try:
        import fsspec

        fsspec.get_filesystem_class(url_protocol(path))
    except (ImportError, ValueError) as error:  # the package of the protocol; a protocol that it does not know
        return str(error)
    return None
