"""Writing a file so that it is whole or not there at all.

    write_file("m.tflite", segments)
      .m.tflite.XXXX.part  <- the segments, flushed to the disk
      m.tflite             <- the part, renamed over what stood there

Whatever happens before the rename (a full disk, an exception, a killed process), the file that
stood at the path stays as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from fxquant.errors import OutputError

Bytes = bytes | memoryview
ADVICE: dict[int, str] = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "your quota is used up: free some space, or write to another disk",
    errno.EFBIG: "raise the limit for the size of a file (ulimit -f), or write to another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "the disk is mounted read-only: choose another folder",
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_file(path: str | os.PathLike[str], segments: Iterable[Bytes]) -> int:
    """Write the segments one behind the other; the number of bytes written.

    Raises:
        OutputError: the file cannot be written. What stood at the path before is untouched.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder", fix="name a file inside of it")
    try:
        return _write_and_rename(target, segments)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}",
            fix=ADVICE.get(error.errno or 0, "choose another path"),
        ) from error


def write_files(files: Sequence[tuple[Path, Iterable[Bytes]]]) -> None:
    """Write several files that belong together: all of them or none.

    Raises:
        OutputError: one cannot be written. What stood at the paths before is untouched.
    """
    before = [(path, os.path.lexists(path), _keep(path)) for path, _ in files]
    try:
        for path, segments in files:
            write_file(path, segments)
    except BaseException:
        for path, existed, name in before:
            _put_back(path, existed, name)
        raise
    finally:
        for _, _, name in before:
            if name is not None:
                name.unlink(missing_ok=True)


def _keep(path: Path) -> Path | None:
    """A second name for what stands at a path, so that it outlives being replaced."""
    real = Path(os.path.realpath(path))
    name = real.with_name(f".{real.name[:100]}.{secrets.token_hex(6)}.kept")
    with contextlib.suppress(OSError):
        os.link(real, name)
        return name
    return None


def _put_back(path: Path, existed: bool, name: Path | None) -> None:
    with contextlib.suppress(OSError):
        if name is not None:
            os.replace(name, os.path.realpath(path))
        elif not existed:
            path.unlink(missing_ok=True)


def _write_and_rename(target: Path, segments: Iterable[Bytes]) -> int:
    # A link keeps pointing where it did: the file behind it is replaced.
    real = Path(os.path.realpath(target))
    if real.exists() and not real.is_file():
        return _write_into(real, os.O_WRONLY, segments)  # a device or a pipe must not be replaced
    if real.exists() and not os.access(real, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    part = real.with_name(f".{real.name[:100]}.{secrets.token_hex(6)}.part")
    try:
        size = _write_into(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, segments)
        if real.exists():
            os.chmod(part, real.stat().st_mode & 0o777)
        os.replace(part, real)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    _sync_folder(real.parent)
    return size


def _write_into(path: Path, flags: int, segments: Iterable[Bytes]) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
    try:
        size = sum(_write_all(descriptor, segment) for segment in segments)
        if path.is_file():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size


def _write_all(descriptor: int, segment: Bytes) -> int:
    """Write every byte: one call may take only a part of them."""
    view = memoryview(segment).cast("B")
    written = 0
    while written < len(view):
        written += os.write(descriptor, view[written:])
    return len(view)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
