"""A file is whole or not there: full disks, killed processes, bad paths, links and devices."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fxquant.backends.lowering.output_file import write_file
from fxquant.errors import OutputError


def test_segments_follow_each_other_and_nothing_else_is_left(tmp_path: Path) -> None:
    assert write_file(tmp_path / "m.tflite", [b"abc", memoryview(b"de"), b""]) == 5
    assert (tmp_path / "m.tflite").read_bytes() == b"abcde"
    assert os.listdir(tmp_path) == ["m.tflite"]


def test_a_file_that_stood_there_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_file(path, [b"new"])
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_keeps_pointing_where_it_did(tmp_path: Path) -> None:
    real, link = tmp_path / "real.tflite", tmp_path / "link.tflite"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_file(link, [b"new"])
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "mounted read-only"),
        (errno.EIO, "choose another path"),
    ],
)
def test_a_failing_write_leaves_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    write = os.write

    def fail(descriptor: int, data: bytes) -> int:
        if len(data) == 3:
            raise OSError(code, os.strerror(code))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OutputError, match=advice) as caught:
        write_file(path, [b"long enough", b"end"])
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.tflite"]


def test_writes_that_take_only_a_part_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    write_file(tmp_path / "m.tflite", [bytes(range(100))])
    assert (tmp_path / "m.tflite").read_bytes() == bytes(range(100))


def test_an_exception_while_segments_are_made_leaves_nothing(tmp_path: Path) -> None:
    def segments() -> object:
        yield b"abc"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "m.tflite", segments())  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


LIMITED = """
import resource, signal, sys
from fxquant.backends.lowering.output_file import write_file
from fxquant.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    write_file(sys.argv[1], [bytes(1 << 20)])
except OutputError as error:
    print(error)
"""


def test_a_real_limit_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True)
    assert "cannot write" in done.stdout, done.stderr
    assert "ulimit -f" in done.stdout
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.tflite"]


SLOW = """
import sys, time
from fxquant.backends.lowering.output_file import write_file

def segments():
    while True:
        yield bytes(1 << 16)
        print("written", flush=True)
        time.sleep(0.01)

write_file(sys.argv[1], segments())
"""


def test_a_killed_process_leaves_no_half_file_at_the_path(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    process = subprocess.Popen([sys.executable, "-c", SLOW, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.read_bytes() == b"old"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"):
        write_file(tmp_path, [b"abc"])


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="make the folder first"):
        write_file(tmp_path / "missing" / "m.tflite", [b"abc"])


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="a part of the path is a file"):
        write_file(tmp_path / "file" / "m.tflite", [b"abc"])


def test_a_file_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="choose a folder that you may write to"):
        write_file(path, [b"new"])
    assert path.read_bytes() == b"old"


def test_a_device_is_written_and_not_replaced() -> None:
    assert write_file("/dev/null", [b"abc"]) == 3
    assert not Path("/dev/null").is_file()
