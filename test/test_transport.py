"""Which DDS profile a process takes, and what it leaves to the user."""

from __future__ import annotations

import errno
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from drive_seg.resources import config_file
from drive_seg.ros.transport import PROFILE_VARIABLES, SEGMENT_BYTES, choose_profile, segment_size

UP_TO_JAZZY, FROM_KILTED_ON = PROFILE_VARIABLES


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS", "RMW_IMPLEMENTATION", "ROS_LOCALHOST_ONLY"):
        monkeypatch.setenv(variable, "")  # so that it is restored, whatever is set meanwhile
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


class Usage:
    """As ``shutil.disk_usage`` answers."""

    def __init__(self, free: int) -> None:
        self.free = free


def transports() -> dict[str, dict[str, str]]:
    """Kind -> its settings, of those that the participant of the chosen profile uses."""
    chosen = {os.environ[variable] for variable in PROFILE_VARIABLES}
    assert len(chosen) == 1
    root = ElementTree.parse(chosen.pop()).getroot()
    for element in root.iter():
        element.tag = element.tag.partition("}")[2] or element.tag
    described = {
        of.findtext("transport_id"): {child.tag: child.text or "" for child in of}
        for of in root.iter("transport_descriptor")
    }
    (used,) = root.iter("userTransports")
    assert root.findtext(".//useBuiltinTransports") == "false"
    return {described[one.text]["type"]: described[one.text] for one in used}


@pytest.mark.parametrize("free", [1 << 30, 4 * SEGMENT_BYTES])
def test_a_roomy_machine_gets_a_segment_that_holds_images(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(free))
    choose_profile()
    assert os.environ[UP_TO_JAZZY] == str(config_file("fastdds.xml"))
    assert set(transports()) == {"SHM", "UDPv4"}
    assert int(transports()["SHM"]["segment_size"]) == SEGMENT_BYTES


@pytest.mark.parametrize("free_mb", [16, 63, 64, 100, 127])
def test_a_small_one_gets_less(monkeypatch: pytest.MonkeyPatch, free_mb: int) -> None:
    free = free_mb << 20
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(free))
    choose_profile()
    shared = transports()["SHM"]
    size = segment_size(free)
    assert size is not None and size * 4 <= free < size * 8
    assert int(shared["segment_size"]) == size
    assert int(shared["maxMessageSize"]) * 2 <= size


def test_without_room_the_default_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(15 << 20))
    assert "left at its default, only 15 MB free" in choose_profile()
    assert not set(PROFILE_VARIABLES) & set(os.environ)


@pytest.mark.parametrize("variable", PROFILE_VARIABLES)
def test_a_profile_of_the_users_is_taken_by_every_release(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "/etc/mine.xml")
    assert choose_profile() == f"DDS profile /etc/mine.xml (from {variable})"
    assert [os.environ[name] for name in PROFILE_VARIABLES] == ["/etc/mine.xml"] * 2


def test_transports_that_the_user_chose_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    assert "FASTDDS_BUILTIN_TRANSPORTS=UDPv4" in choose_profile(Path("/"))
    assert not set(PROFILE_VARIABLES) & set(os.environ)


def test_another_middleware_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    assert choose_profile(Path("/")) == "DDS profile left to rmw_cyclonedds_cpp"
    assert not set(PROFILE_VARIABLES) & set(os.environ)


@pytest.mark.parametrize(("distribution", "kinds"), [("humble", {"SHM"}), ("jazzy", {"SHM", "UDPv4"})])
def test_a_node_that_is_to_stay_on_this_host_opens_no_udp_of_its_own_on_humble(
    monkeypatch: pytest.MonkeyPatch, distribution: str, kinds: set[str]
) -> None:
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    monkeypatch.setenv("ROS_DISTRO", distribution)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1 << 30))
    choose_profile()
    assert set(transports()) == kinds
    assert int(transports()["SHM"]["segment_size"]) == SEGMENT_BYTES


def test_profiles_with_and_without_udp_are_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(64 << 20))
    monkeypatch.setenv("ROS_DISTRO", "humble")
    choose_profile()
    first = os.environ[UP_TO_JAZZY]
    for variable in PROFILE_VARIABLES:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    choose_profile()
    assert set(transports()) == {"SHM"} and "UDPv4" in Path(first).read_text()


@pytest.mark.parametrize("free_mb", [64, 1024])
def test_a_process_without_a_place_for_a_file_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_mb: int
) -> None:
    """As in a container whose root is read-only, and which has no /tmp of its own."""
    nowhere = tmp_path / "file"
    nowhere.touch()
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(free_mb << 20))
    monkeypatch.setattr("tempfile.tempdir", str(nowhere))
    monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere))
    said = choose_profile()
    assert ("left at its default" in said and "TMPDIR" in said) == (free_mb == 64)
    assert bool(set(PROFILE_VARIABLES) & set(os.environ)) == (free_mb == 1024)


def test_a_cache_on_a_full_disk_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if path.parent == tmp_path / "cache" / "drive_seg":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(64 << 20))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "replace", refuse)
    choose_profile()
    assert int(transports()["SHM"]["segment_size"]) == segment_size(64 << 20)
    assert not list((tmp_path / "cache").rglob("*.xml"))


def test_shared_memory_that_is_read_only_is_not_said_to_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1 << 30))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert choose_profile() == "DDS profile left at its default, /dev/shm cannot be written"
    assert not set(PROFILE_VARIABLES) & set(os.environ)
