"""The spool from both ends: nothing that was taken is lost, drops are counted, a full disk is survived."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from disks import small_disk
from exchanges import an_exchange
from mlserving.predictions.exchange import Exchange
from mlserving.predictions.spool import SUFFIX, SpoolReader, SpoolWriter, segments, size_of

MIB = 1 << 20


def everything(folder: Path) -> list[Exchange]:
    reader = SpoolReader(folder)
    return [exchange for path in reader.finished() for exchange in reader.read(path)]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SpoolWriter]:
    writer = SpoolWriter(tmp_path, 64 * MIB)
    yield writer
    writer.close()


def test_what_is_appended_is_read_in_order(tmp_path: Path, writer: SpoolWriter) -> None:
    exchanges = [an_exchange(number) for number in range(100)]
    assert all(writer.append(exchange) for exchange in exchanges)
    writer.close()
    assert everything(tmp_path) == exchanges
    assert not writer.dropped


def test_an_open_segment_is_not_finished_but_can_be_read(tmp_path: Path, writer: SpoolWriter) -> None:
    writer.append(an_exchange())
    assert writer.drain(5)
    reader = SpoolReader(tmp_path)
    assert reader.finished() == []
    assert list(reader.read(segments(tmp_path)[0])) == [an_exchange()]


def test_a_segment_is_finished_when_it_is_old_without_another_append(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, MIB, segment_seconds=0.05)
    writer.append(an_exchange())
    until = time.monotonic() + 5
    while not SpoolReader(tmp_path).finished():
        assert time.monotonic() < until
    assert everything(tmp_path) == [an_exchange()]
    writer.close()


def test_segments_rotate_by_size(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 64 * MIB, segment_bytes=10_000)
    for number in range(100):
        writer.append(an_exchange(number, request=bytes(1000)))
        writer.drain(5)
    writer.close()
    assert len(segments(tmp_path)) >= 9
    assert len(everything(tmp_path)) == 100


def test_beyond_the_bound_it_drops_and_counts_and_goes_on_once_the_reader_has_deleted(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 100_000, segment_bytes=10_000)
    taken = sum(writer.append(an_exchange(number, request=bytes(1000))) for number in range(500))
    assert writer.drain(5)
    assert writer.dropped == {"full": 500 - taken}
    assert size_of(tmp_path) <= 100_000 + 8 * len(segments(tmp_path))  # each segment begins with eight bytes
    reader = SpoolReader(tmp_path)
    reader.delete(reader.finished())
    until = time.monotonic() + 5
    while not writer.append(an_exchange(1000, request=bytes(1000))):
        assert time.monotonic() < until
        time.sleep(0.01)
    writer.close()


def test_a_gateway_after_another_leaves_what_the_first_one_wrote(tmp_path: Path) -> None:
    for generation in range(3):
        writer = SpoolWriter(tmp_path, MIB)
        writer.append(an_exchange(generation))
        writer.close()
    assert everything(tmp_path) == [an_exchange(0), an_exchange(1), an_exchange(2)]


def test_what_no_record_can_hold_is_dropped_and_counted(tmp_path: Path, writer: SpoolWriter) -> None:
    writer.append(an_exchange(0, prediction_id="x" * 300))
    writer.append(an_exchange(1))
    writer.close()
    assert writer.dropped == {"error": 1}
    assert everything(tmp_path) == [an_exchange(1)]


def test_a_disk_that_takes_nothing_costs_nothing_until_the_queue_is_full_and_then_counted_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses by its own words: the limit on a file's size, at which the kernel answers EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = SpoolWriter(tmp_path, 256 * MIB)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        kept = [number for number in range(300) if writer.append(an_exchange(number, request=bytes(100_000)))]
        assert not writer.drain(0.5)
        refused = writer.dropped["error"]
        assert refused == 300 - len(kept)
        assert refused > 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert writer.drain(5), "there is space again, and it did not go on"
    assert writer.append(an_exchange(999))
    writer.close()
    assert [each.prediction_id for each in everything(tmp_path)] == [f"id-{number}" for number in [*kept, 999]]


def test_a_disk_that_the_spool_itself_has_filled_is_given_free_again_by_who_takes_from_it(tmp_path: Path) -> None:
    """The disk ends within a record. Held back for its end, the segment would keep the disk full for ever."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = SpoolWriter(tmp_path, 256 * MIB, segment_seconds=3600)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, hard))
    try:
        exchanges = [an_exchange(number, request=bytes([number]) * 100_000) for number in range(5)]
        for exchange in exchanges:
            writer.append(exchange)
        assert writer.drain(10), "each segment has room for two, and it did not go on to the next"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.close()
    reader = SpoolReader(tmp_path)
    assert [exchange for path in reader.finished() for exchange in reader.read(path)] == exchanges
    assert (len(segments(tmp_path)), reader.torn) == (3, 0)


def test_a_spool_that_may_fill_its_disk_leaves_room_for_what_the_recorder_must_note_before_it_deletes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        writer = SpoolWriter(disk, 256 * MIB, segment_seconds=0.2)
        exchanges = [an_exchange(number, request=bytes(1000)) for number in range(3000)]
        kept = [exchange for exchange in exchanges if writer.append(exchange)]
        reader, taken, deadline = SpoolReader(disk), list[Exchange](), time.monotonic() + 30
        while len(taken) < len(kept):
            assert time.monotonic() < deadline, f"{len(taken)} of {len(kept)}"
            time.sleep(0.3)
            finished = reader.finished()
            taken += [exchange for path in finished for exchange in reader.read(path)]
            (disk / "note").write_bytes(bytes(100_000))  # with less, nothing could ever be deleted
            reader.delete(finished)
            (disk / "note").unlink()
        writer.close()
    assert (taken, reader.torn) == (kept, 0)


def test_a_broken_disk_begins_the_record_anew_in_another_segment(
    tmp_path: Path, writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No disk here fails on command, so the system call does: it takes half of a write, then answers EIO once."""
    real, calls = os.write, []

    def fails_in_the_middle(file: int, data: bytes) -> int:
        if len(data) > 100_000:
            calls.append(len(data))
            if len(calls) == 1:
                return real(file, bytes(data)[:50_000])
            if len(calls) == 2:
                raise OSError(errno.EIO, "input/output error")
        return real(file, data)

    monkeypatch.setattr(os, "write", fails_in_the_middle)
    exchanges = [an_exchange(number, request=bytes([number]) * 200_000) for number in range(3)]
    for exchange in exchanges:
        writer.append(exchange)
    assert writer.drain(5)
    writer.close()
    assert everything(tmp_path) == exchanges
    assert len(segments(tmp_path)) == 2


_WRITES_UNTIL_KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from disks import small_disk
from exchanges import an_exchange
from mlserving.predictions.spool import SpoolWriter
writer = SpoolWriter(Path(sys.argv[1]), 1 << 30)
number = 0
while True:
    writer.append(an_exchange(number, request=bytes(700)))
    number += 1
    if number % 50 == 0:
        writer.drain(5)
        print(number, flush=True)
"""


def test_a_killed_gateway_loses_nothing_that_the_operating_system_had(tmp_path: Path) -> None:
    builders = str(Path(sys.modules["exchanges"].__file__ or "").parent)
    with subprocess.Popen([sys.executable, "-c", _WRITES_UNTIL_KILLED, str(tmp_path), builders], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        confirmed = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        confirmed += process.stdout.readlines()
    numbers = [int(each.prediction_id.removeprefix("id-")) for each in everything(tmp_path)]
    whole_lines = [line for line in confirmed if line.endswith(b"\n")]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= int(whole_lines[-1])


def test_threads_may_append_together(tmp_path: Path, writer: SpoolWriter) -> None:
    threads = [threading.Thread(target=lambda n=n: [writer.append(an_exchange(n * 1000 + each)) for each in range(500)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert len({each.prediction_id for each in everything(tmp_path)}) == 2000


def test_a_file_of_somebody_else_is_no_segment_and_no_crash(tmp_path: Path, writer: SpoolWriter) -> None:
    (tmp_path / f"0{SUFFIX}").write_bytes(b"hello")
    writer.append(an_exchange())
    writer.close()
    reader = SpoolReader(tmp_path)
    assert [exchange for path in reader.finished() for exchange in reader.read(path)] == [an_exchange()]
    assert reader.torn == 1
