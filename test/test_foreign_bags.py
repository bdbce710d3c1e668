"""Bags as other tools write them, and as their recorders leave them when they are killed."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from recordings import stamp_of, write_bag

pytest.importorskip("rosbags", reason="rosbags is not installed")

from drive_seg.errors import SourceError
from drive_seg.offline.bags import BagSource

COUNT = 6


def stamps(bag: BagSource) -> list[int]:
    return [frame.stamp_ns for frame in bag]


def recorded(first: int, last: int) -> list[int]:
    return [stamp_of(number) for number in range(first, last)]


def killed_recorder(file: Path, folder: Path, journal: str, committed: int) -> Path:
    """A recorder's folder in the middle of its work on what ``file`` has, of which so many messages are committed."""
    recording = folder.with_name("recording")
    recording.mkdir()
    shutil.copy(file, recording / "drive_0.db3")
    database = sqlite3.connect(recording / "drive_0.db3", isolation_level=None)
    rows = database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id").fetchall()
    database.execute("DELETE FROM messages")
    database.execute("VACUUM")
    database.execute(f"PRAGMA journal_mode = {journal}")
    database.execute("PRAGMA cache_size = 1")  # what is not committed is in the file as well
    database.execute("BEGIN")
    for number, row in enumerate(rows):
        if number == committed:
            database.execute("COMMIT")
            database.execute("BEGIN")
        database.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    shutil.copytree(recording, folder)
    database.close()
    return folder


def test_what_a_killed_recorder_left_in_its_log_is_read(tmp_path: Path) -> None:
    """rosbag2's preset ``resilient`` writes ahead: most of a short bag is in drive_0.db3-wal."""
    file = write_bag(tmp_path / "in", COUNT, "sqlite3")
    folder = killed_recorder(file, tmp_path / "left", "WAL", committed=4)
    assert (folder / "drive_0.db3-wal").stat().st_size > 0
    for bag in (folder, folder / "drive_0.db3"):
        assert stamps(BagSource(bag)) == recorded(0, 4)


def test_what_a_recorder_wrote_until_it_was_killed_is_read_then_one_error(tmp_path: Path) -> None:
    file = write_bag(tmp_path / "in", COUNT, "sqlite3")
    folder = killed_recorder(file, tmp_path / "left", "DELETE", committed=4)
    assert (folder / "drive_0.db3-journal").stat().st_size > 0
    found = []
    with pytest.raises(SourceError, match=r"is cut short: [456] images .* drive_0\.db3-journal is still there"):
        for entry in BagSource(folder):
            found.append(entry.stamp_ns)
    assert found[:4] == recorded(0, 4)


def test_nothing_is_made_beside_a_bag_that_was_written_ahead(tmp_path: Path) -> None:
    """Where nothing can be written, on a disk of somebody else, it could not be read at all."""
    file = write_bag(tmp_path / "in", COUNT, "sqlite3")
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode = WAL")
    database.close()
    before = sorted(file.parent.iterdir())
    assert stamps(BagSource(file)) == stamps(BagSource(file.parent)) == recorded(0, COUNT)
    assert sorted(file.parent.iterdir()) == before
