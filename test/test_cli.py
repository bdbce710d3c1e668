"""The command line from outside: exit codes, one line of error, one object of JSON."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import Done, drive_seg, drive_seg_process, errors, interrupted, last_object, python
from recordings import FPS, HEIGHT, WIDTH, write_images, write_video
from tiny_model import write_tiny_model

from drive_seg import cli
from drive_seg.labels import mask_of
from drive_seg.offline.bag_images import bag_messages, stamp_of
from drive_seg.sim import Simulator

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

COMMANDS = ("demo", "run", "sim", "benchmark", "info", "train", "export")


def arguments_of(source: object, out: object, model: Path) -> tuple[object, ...]:
    return ("run", source, "-o", out, "--model", model, "--backend", "onnxruntime")


def run(source: object, out: object, model: Path, *more: object, code: int = 0) -> Done:
    return drive_seg(*arguments_of(source, out, model), *more, code=code)


def run_process(source: object, out: object, model: Path, *more: object, code: int = 0) -> Done:
    return drive_seg_process(*arguments_of(source, out, model), *more, code=code)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str) -> None:
    text = drive_seg(command, "--help").stdout
    assert "Examples" in text and f"drive_seg {command}" in text
    assert "--json" in text and "--debug" in text


def test_no_option_is_lost_on_the_typer_of_ubuntu_24_04() -> None:
    """0.9.0 reads no annotation that is a string, nor a pair that may be None."""
    commands = [*cli.app.registered_commands, cli.app.registered_callback]
    callbacks = [command.callback for command in commands if command and command.callback]
    assert len(callbacks) > len(COMMANDS)
    for parameter in (one for callback in callbacks for one in inspect.signature(callback).parameters.values()):
        assert not isinstance(parameter.annotation, str), parameter
        assert parameter.default is not None or "tuple" not in str(parameter.annotation).lower(), parameter


def test_a_typer_that_is_too_old_is_one_line() -> None:
    script = "import typer; typer.__version__ = '0.4.0'; import drive_seg.cli"
    done = python("-c", script, code=1)
    (line,) = done.stderr.splitlines()
    assert line.startswith("drive_seg: error: typer 0.4.0 is too old; install it with: ") and "'typer>=0.9'" in line


def test_help_shows_no_default_where_there_is_none() -> None:
    assert "[default: ()]" not in drive_seg("evaluate", "--help").stdout


def test_the_console_script_is_main() -> None:
    from importlib.metadata import PackageNotFoundError, entry_points, version

    try:
        version("drive_seg")
    except PackageNotFoundError:
        pytest.skip("drive_seg is not installed here, only importable")
    (script,) = [e for e in entry_points(group="console_scripts") if e.name == "drive_seg"]
    assert script.value == "drive_seg.executables:command_line"
    assert drive_seg_process("--version").stdout.startswith("drive_seg ")


def test_run_prints_the_summary_as_the_last_line(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "in", ["b.png", "a.png"])
    done = run_process(tmp_path / "in", tmp_path / "out", model, "--json")
    printed, written = last_object(done), json.loads((tmp_path / "out/summary.json").read_text())
    assert {key: printed[key] for key in written} == written
    assert written["frames"] == {"received": 2, "published": 2, "dropped": {}, "failed": 0}
    assert written["backend"] == "onnxruntime" and written["precision"] == "fp32" and written["model"] == "tiny"
    panoptic = cv2.imread(str(tmp_path / "out/panoptic/a.png"), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(tmp_path / "out/mask/a.png"), cv2.IMREAD_UNCHANGED)
    assert panoptic.dtype == np.uint16 and np.array_equal(mask_of(panoptic), mask)
    assert 3001 in panoptic


def test_run_without_json_is_for_people(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "in", ["a.png"])
    text = run(tmp_path / "in", tmp_path / "out", model).stdout
    assert "inference" in text and "1 of 1 frame at" in text and "{" not in text


def test_names_in_brackets_are_shown_as_they_are(tmp_path: Path, model: Path) -> None:
    """To rich they are markup: it swallows [bold], and [/x] closes nothing."""
    folder = tmp_path / "[bold] [abc]"
    write_images(folder / "image", ["a.png"])
    assert "segmenting [bold] [abc]" in run(folder, tmp_path / "masks", model).stderr
    classes = ["background", "road", "lane_marking", "vehicle", "pedestrian", "cyclist"]
    label_map = {"classes": {"[bold]": {"truth": classes[:3], "predicted": classes[:3]}}}
    label_map["classes"]["[/x] other"] = {"truth": classes[3:], "predicted": classes[3:]}
    (tmp_path / "map.yaml").write_text(json.dumps(label_map))
    masks = tmp_path / "masks"
    scored = drive_seg("evaluate", masks, "-g", masks, "--model", model, "--label-map", tmp_path / "map.yaml")
    assert "\n [bold] " in scored.stdout and "\n [/x] other " in scored.stdout


def test_a_tilde_is_a_home_or_else_part_of_a_name(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from drive_seg.offline.chunks import read_list

    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "~ in", ["a.png"])
    run("~ in", "~out", model)
    drive_seg("evaluate", "~out", "-g", "~out", "--model", model)
    (tmp_path / "drives.txt").write_text("~/a.mcap\n~b.mcap\n")
    monkeypatch.setenv("HOME", "/home/me")
    assert read_list(tmp_path / "drives.txt") == ["/home/me/a.mcap", str(tmp_path / "~b.mcap")]


def test_a_narrow_terminal_cuts_no_number_off(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "in", ["a.png"])
    monkeypatch.setenv("COLUMNS", "24")
    shown = run(tmp_path / "in", tmp_path / "masks", model).stdout
    shown += drive_seg("evaluate", tmp_path / "masks", "-g", tmp_path / "masks", "--model", model).stdout
    assert "postprocess" in shown and "lane_marking" in shown and "\N{HORIZONTAL ELLIPSIS}" not in shown


def test_work_in_phases_is_seen_in_a_file_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar is drawn there once, at its end; an engine is built for minutes."""
    from drive_seg.commands import terminal

    with terminal.phase_bar("building") as progress:
        for _ in range(3):
            progress("compiling", 0, 0)
        assert capsys.readouterr().err == "building: compiling, 0 s\n"
        monkeypatch.setattr(terminal, "_LINE_EVERY_S", 0.0)
        progress("compiling", 2, 7)
        assert capsys.readouterr().err.startswith("building: compiling 2/7, ")


def test_a_narrow_terminal_folds_what_info_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    (line,) = [line for line in drive_seg("info").stdout.splitlines() if "cpu system" in line]
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, a pipe is a terminal then
    monkeypatch.setenv("NO_COLOR", "1")
    shown = drive_seg("info").stdout
    assert max(map(len, shown.splitlines())) <= 40 < len(line)
    said = ["".join(text.replace("│", "").split()) for text in (line, shown[shown.index("cpu system") :])]
    assert said[1].startswith(said[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("command", ["info", "info --json", "--help"])
def test_a_full_disk_is_no_bug_of_ours(command: str) -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        arguments = [sys.executable, "-m", "drive_seg", *command.split()]
        pipe = subprocess.PIPE
        done = subprocess.run(arguments, stdout=full, stderr=pipe, text=True, timeout=60, check=False, env=buffered)
    assert done.returncode == 1
    assert done.stderr == "drive_seg: error: cannot write: No space left on device\n"


def test_without_a_stdout_a_command_does_its_work() -> None:
    command = [sys.executable, "-m", "drive_seg", "info"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


def test_children_too_have_something_in_place_of_a_stream_that_is_closed() -> None:
    child = "subprocess.call([sys.executable, '-c', 'import os; os.fstat(2)'])"
    program = f"import subprocess, sys; from drive_seg.standard_streams import occupy; occupy(); sys.exit({child})"
    assert subprocess.call([sys.executable, "-c", program], timeout=60, preexec_fn=lambda: os.close(2)) == 0


def test_work_outlives_the_terminal_that_it_tells_of(tmp_path: Path, model: Path) -> None:
    write_video(tmp_path / "in.mp4", 9)
    try:
        ours, terminal = os.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminals here: {error}")
    arguments = map(str, arguments_of(tmp_path / "in.mp4", tmp_path / "out", model))
    command = [sys.executable, "-m", "drive_seg", *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        said = b""
        while b"segmenting" not in said:
            said += os.read(ours, 4096)
        os.close(ours)
        assert process.wait(timeout=60) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"]["published"] == 9


def test_run_stops_after_frames(tmp_path: Path, model: Path) -> None:
    write_video(tmp_path / "in.mp4", 9)
    done = run(tmp_path / "in.mp4", tmp_path / "out.mp4", model, "--frames", 4, "--json")
    assert last_object(done)["frames"]["published"] == 4
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(FPS)


def test_errors_are_one_line_and_exit_1(tmp_path: Path, model: Path) -> None:
    done = run_process(tmp_path / "nowhere.mp4", tmp_path / "out", model, code=1)
    assert len(errors(done)) == 1 and "nowhere.mp4' does not exist" in errors(done)[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_a_file_says_gives_the_terminal_no_orders(tmp_path: Path, model: Path) -> None:
    done = run(tmp_path / "\x1b[31mred\x9b2J.mp4", tmp_path / "out", model, code=1)
    assert r"\x1b[31mred\x9b2J.mp4' does not exist" in errors(done)[0] and "\x1b" not in done.stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(tmp_path: Path, place: str) -> None:
    arguments: Sequence[object] = ("run", tmp_path / "nowhere.mp4", "-o", tmp_path / "out")
    arguments = ("--debug", *arguments) if place == "before" else (*arguments, "--debug")
    done = drive_seg_process(*arguments, code=1)
    assert "Traceback" in done.stderr and "SourceError" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "sim"),
        ("run", "sim", "-o", "out", "--backend", "gpu9000"),
        ("run", "sim", "-o", "out", "--frames", "-3"),
        ("fly",),
        ("demo", "--seconds", "soon"),
        ("export", "x.pt", "--name", "x", "--width", "100"),
        ("export", "x.pt", "--name", "x", "--width", "65536"),
        ("export", "x.pt", "--name", ""),
        ("export", "x.pt", "--name", "../x"),
    ],
)
def test_bad_usage_exits_2(arguments: tuple[str, ...]) -> None:
    done = drive_seg(*arguments, code=2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("run", "{in}", "-o", "{out}", "--seed", 4), "--seed"),
        (("run", "{in}", "-o", "{out}", "--topic", "/x"), "--topic"),
        (("run", "{in}", "-o", "{out}", "--overlay"), "--overlay"),
        (("run", "{in}", "-o", "{out}", "--no-track", "--track-max-age", 3), "--track-max-age"),
        (("evaluate", "sim", "-g", "{in}", "-o", "{out}"), "--ground-truth"),
        (("evaluate", "{in}", "-g", "{in}", "-o", "{out}", "--weather", "fog"), "--weather"),
        (("evaluate", "{in}", "-g", "{in}", "-o", "{out}", "--truth-topic", "/x"), "--truth-topic"),
        (("evaluate", "{in}", "-g", "{in}", "-o", "{out}", "--block", 30), "--block"),
        (("evaluate", "{in}", "-g", "{in}", "-o", "{out}", "--chunk-seconds", 3), "--chunk-seconds"),
        (("evaluate", "{in}", "-g", "{in}", "--worst", 3), "--worst"),
        (("evaluate", "--compare", "a.json", "b.json", "-o", "{out}"), "--out"),
        (("benchmark", "--source", "{in}", "--sizes", "640x384"), "--sizes"),
        (("benchmark", "--full", "--threads", 1), "--threads"),
        (("export", "x.pt", "--name", "x", "--calibration", "sim"), "--calibration"),
        (("demo", "--loop", "-o", "{out}"), "--loop"),
        (("demo", "--source", "{in}", "--seed", 4, "-o", "{out}"), "--seed"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path: Path, arguments: tuple[object, ...], option: str) -> None:
    write_images(tmp_path / "in", ["a.png"])
    places = {"{in}": tmp_path / "in", "{out}": tmp_path / "out"}
    said = drive_seg(*(places.get(str(one), one) for one in arguments), code=2).stderr
    assert f"for {option}: no effect" in said
    assert not (tmp_path / "out").exists()


def test_of_images_with_the_same_trouble_the_first_are_named_and_others_counted(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "in", ["a.png", "damaged.png"])
    picture = (tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "in" / "damaged.png").write_bytes(picture[: len(picture) // 2])
    for number in range(7):
        (tmp_path / "in" / f"no image {number}.jpg").write_bytes(b"no JPEG" + bytes(number))
    lines = run(tmp_path / "in", tmp_path / "out", model).stderr.splitlines()
    warnings = [line.partition("warning: ")[2] for line in lines if "warning: " in line]
    assert [line.partition(":")[0] for line in warnings] == [
        "left out damaged",
        *(f"left out no image {number}" for number in range(5)),
        "left out 2 more images like no image 4",
    ]


def test_an_option_that_says_what_is_the_case_anyway_is_taken(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "in", ["a.png"])
    run(tmp_path / "in", tmp_path / "out", model, "--seed", 0, "--weather", "clear", "--topic", "")


def test_predictions_made_before_are_not_made_anew_and_that_is_said(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "in", ["a.png"])
    run(tmp_path / "in", tmp_path / "out", model)
    arguments = ("evaluate", tmp_path / "out", "-g", tmp_path / "out", "--model", model)
    said = drive_seg(*arguments, "--score-threshold", 0.9, "--no-track", "--frames", 300).stderr
    assert "warning: no effect of --score-threshold, --no-track:" in said
    assert "1/1 " in said  # not 1/300
    assert "warning" not in drive_seg(*arguments).stderr


@pytest.mark.parametrize("arguments", [("run", "", "-o", "out"), ("benchmark", "--source", "")])
def test_an_empty_name_is_not_the_current_folder(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    write_images(tmp_path, ["a.png"])
    monkeypatch.chdir(tmp_path)
    said = drive_seg(*arguments, "--model", model, "--backend", "onnxruntime", "--frames", 1, code=1).stderr
    assert "source '' does not exist" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "{long}", "-o", "out"),
        ("evaluate", "{long}", "-g", "truth"),
        ("evaluate", "--compare", "{long}", "{long}"),
        ("demo", "--source", "{long}"),
        ("export", "{long}", "--name", "x"),
    ],
)
def test_a_name_that_no_file_can_have_is_no_bug_of_ours(arguments: tuple[str, ...]) -> None:
    """pathlib raises for it before Python 3.14, where it only answers no for others; and so for a folder that may not
    be looked into."""
    if arguments[0] in ("demo", "export"):
        pytest.importorskip("rclpy" if arguments[0] == "demo" else "torch")
    said = drive_seg(*(one.replace("{long}", "x" * 300) for one in arguments), code=1).stderr
    assert said.startswith("drive_seg: error: ") and said.count("\n") == 1
    assert "File name too long" in said or "does not exist" in said


def test_nothing_is_overwritten_unasked(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "in", ["a.png"])
    run(tmp_path / "in", tmp_path / "out", model)
    assert "--overwrite" in errors(run(tmp_path / "in", tmp_path / "out", model, code=1))[0]
    run(tmp_path / "in", tmp_path / "out", model, "--overwrite")


def test_a_source_is_not_overwritten_with_its_results(tmp_path: Path, model: Path) -> None:
    video = tmp_path / "in.mp4"
    write_video(video, 3)
    before = video.read_bytes()
    assert "--out" in run_process(video, video, model, "--overwrite", code=2).stderr
    assert video.read_bytes() == before
    results = tmp_path / "results"
    write_images(results / "mask", ["a.png"])
    assert "--out" in run(results / "mask", results, model, "--overwrite", code=2).stderr
    assert (results / "mask/a.png").exists()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a place where nobody may write, root included")
def test_a_folder_that_cannot_be_written_is_no_bug_of_ours(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "in", ["a.png"])
    place = "/proc/drive_seg"
    for done in (run(tmp_path / "in", place, model, code=1), drive_seg("sim", "-o", place, "--frames", 1, code=1)):
        assert errors(done)[0].startswith(f"drive_seg: error: output {place} cannot be written: ")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a place where nobody may write, root included")
def test_that_a_report_cannot_be_written_is_said_before_the_work_is_done(tmp_path: Path, model: Path) -> None:
    """A folder that is there looks as if it could be written."""
    out = "/proc/self/task"
    done = drive_seg("evaluate", tmp_path / "not_there", "--model", model, "-o", out, "--overwrite", code=1)
    assert errors(done)[0].startswith(f"drive_seg: error: output {out} cannot be written: ")


@pytest.mark.parametrize("size", ["foo", "640", "0x384", "640x", "-1x2"])
@pytest.mark.parametrize("module", ["render", "validate"])
def test_a_size_that_is_none_is_bad_usage(module: str, size: str) -> None:
    out = ("out",) if module == "render" else ()
    done = python("-m", f"drive_seg.network.{module}", *out, f"--size={size}", code=2)
    assert f"WxH in pixels, as 960x544; got '{size}'" in done.stderr


def test_a_run_that_segmented_nothing_has_failed(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_text("no image")
    done = run(tmp_path / "in", tmp_path / "out", model, "--json", code=1)
    assert last_object(done)["frames"]["dropped"] == {"malformed": 1}
    assert "no frame" in errors(done)[0]


def test_ctrl_c_keeps_what_is_done_and_says_so(tmp_path: Path, model: Path) -> None:
    write_video(tmp_path / "in.mp4", 3000)
    out = tmp_path / "out"
    done = interrupted(*arguments_of(tmp_path / "in.mp4", out, model), once=out / "mask/000003.png")
    assert len([line for line in errors(done) if "error: interrupted" in line]) == 1
    frames = json.loads((out / "summary.json").read_text())["frames"]
    assert frames["received"] == frames["published"] + sum(frames["dropped"].values()) < 3000
    assert len((out / "instances.jsonl").read_text().splitlines()) == frames["published"] >= 4


def test_ctrl_c_ends_the_simulator_with_a_word(tmp_path: Path) -> None:
    size = ("--width", 320, "--height", 192)
    done = interrupted("sim", "-o", tmp_path / "out", *size, "--json", once=tmp_path / "out/panoptic/000002.png")
    assert len([line for line in errors(done) if "error: interrupted after " in line]) == 1
    assert last_object(done)["frames"] == len(list((tmp_path / "out/panoptic").iterdir())) < 300


def test_ctrl_c_before_there_are_results_is_one_line_and_exit_1(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("drive_seg.offline.predictions.open_predictions", end)
    (tmp_path / "mask").mkdir()
    done = drive_seg("evaluate", tmp_path, "--ground-truth", tmp_path, "--model", model, code=1)
    assert "interrupted" in done.stderr or "Aborted" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["drive.mp4", "drive.AVI", "drive.png", "drive.MCAP"])
def test_sim_makes_no_folder_that_is_called_like_a_file(name: str, tmp_path: Path) -> None:
    done = drive_seg("sim", "-o", tmp_path / name, "--frames", 1, code=1)
    assert "must end in .mcap or .bag2, or be a folder; got ." in errors(done)[0]
    assert not (tmp_path / name).exists()


def test_sim_renders_what_run_reads(tmp_path: Path, model: Path) -> None:
    size = ("--width", WIDTH, "--height", HEIGHT, "--frames", 3, "--seed", 5)
    folder = last_object(drive_seg_process("sim", "-o", tmp_path / "drive", *size, "--json"))
    assert folder["frames"] == 3 and folder["size"] == [WIDTH, HEIGHT]
    for kind, depth in (("image", np.uint8), ("mask", np.uint8), ("panoptic", np.uint16)):
        image = cv2.imread(str(tmp_path / "drive" / kind / "000002.png"), cv2.IMREAD_UNCHANGED)
        assert image.dtype == depth and image.shape[:2] == (HEIGHT, WIDTH)
    run(tmp_path / "drive", tmp_path / "from_folder", model)
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    drive_seg("sim", "-o", tmp_path / "drive.mcap", *size)
    run(tmp_path / "drive.mcap", tmp_path / "from_bag", model)
    one, other = (sorted((tmp_path / name / "panoptic").iterdir()) for name in ("from_folder", "from_bag"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert len(one) == 3
    infos = [message for _, message in bag_messages(tmp_path / "drive.mcap", ["/camera/camera_info"])]
    assert [stamp_of(info) for info in infos] == [round(number * 1e9 / 30) for number in range(3)]
    assert {(info.width, info.height, info.header.frame_id) for info in infos} == {
        (WIDTH, HEIGHT, "camera_optical_frame")
    }
    assert (infos[0].distortion_model, infos[0].d.any(), infos[0].r.tolist()) == ("plumb_bob", False, [*np.eye(3).flat])
    matrix = Simulator(5, WIDTH, HEIGHT).intrinsics
    assert np.array_equal(infos[0].k.reshape(3, 3), matrix) and np.array_equal(infos[0].p.reshape(3, 4)[:, :3], matrix)


def test_info_names_every_backend_and_what_auto_picks(model: Path) -> None:
    found = last_object(drive_seg_process("info", "--model", model, "--json"))
    assert set(found["backends"]) == {"tensorrt", "openvino", "onnxruntime"}
    assert found["backends"]["onnxruntime"] == "available"
    assert found["auto"]["backend"] in found["backends"] and found["auto"]["why"]
    assert found["ros"]["distro"] and found["gpu"]["found"] in (True, False)
    assert found["models"]["default"] == "640x384, fp32 fp16 int8"
    assert found["model"]["name"] == "tiny" and "sha256 agrees" in found["model"]["onnx"]["fp32"]
    assert "onnxruntime" in drive_seg("info", "--model", model).stdout


def test_info_shows_brackets_as_they_are(tmp_path: Path) -> None:
    """A path or a licence may have some, which a table takes for markup."""
    sidecar = write_tiny_model(tmp_path, size=(WIDTH, HEIGHT))
    lines = [line for line in sidecar.read_text().splitlines() if not line.startswith("license:")]
    sidecar.write_text("\n".join([*lines, "license: mine [gpu] [/x]", ""]))
    assert "mine [gpu] [/x]" in drive_seg("info", "--model", sidecar).stdout


def test_info_gives_json_whatever_the_figures_are(tmp_path: Path) -> None:
    sidecar = write_tiny_model(tmp_path, size=(WIDTH, HEIGHT))
    kept = [line for line in sidecar.read_text().splitlines() if not line.startswith("metrics:")]

    def state(metrics: str) -> None:
        sidecar.write_text("\n".join([*kept, f"metrics: {metrics}", ""]))

    state("{2026-01-02: .nan, on: [2026-01-02, 0.5], raw: !!binary aGk=}")
    found = last_object(drive_seg("info", "--model", sidecar, "--json"))["model"]["metrics"]
    assert found == {"2026-01-02": "nan", "True": ["2026-01-02", 0.5], "raw": "b'hi'"}
    state("5")
    assert "metrics must be a mapping" in errors(drive_seg("info", "--model", sidecar, code=1))[0]


def test_info_refuses_a_damaged_model(tmp_path: Path) -> None:
    sidecar = write_tiny_model(tmp_path)
    with (tmp_path / "tiny.onnx").open("ab") as file:
        file.write(b"\0")
    assert "sha256" in errors(drive_seg("info", "--model", sidecar, code=1))[0]


def test_info_fails_where_no_backend_can_run_the_model(tmp_path: Path) -> None:
    """After saying what there is: a graph may be whole, and still not be what its sidecar says."""
    sidecar = write_tiny_model(tmp_path, size=(WIDTH, HEIGHT))
    sidecar.write_text(sidecar.read_text().replace("centers: centers", "centers: hearts"))
    done = drive_seg("info", "--model", sidecar, "--json", code=1)
    assert last_object(done)["model"]["name"] == "tiny"
    assert len(errors(done)) == 1 and "no output 'hearts'" in errors(done)[0]


@pytest.mark.parametrize("arguments", [("train", "x.yaml"), ("export", "x.pt", "--name", "x")])
def test_the_network_commands_name_what_is_missing(arguments: tuple[str, ...]) -> None:
    start = "import sys; sys.modules['torch'] = None; import drive_seg.cli"
    script = f"{start}; sys.argv[1:] = {list(arguments)!r}; drive_seg.cli.main()"
    done = python("-c", script, code=1)
    assert f"{sys.executable} -m pip install 'torch>=2.5' onnx" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("", "x.yaml"), (".adjust", "x.pt"), (".pack", "x.yaml")])
def test_the_modules_of_training_name_what_is_missing(arguments: tuple[str, str]) -> None:
    module = f"drive_seg.network{arguments[0] or '.__main__'}"
    start = f"import sys, runpy; sys.modules['torch'] = None; sys.argv[1:] = [{arguments[1]!r}]"
    script = f"{start}; runpy.run_module({module!r}, run_name='__main__')"
    done = python("-c", script, code=1)
    assert len(errors(done)) == 1 and "Traceback" not in done.stderr
    assert f"'torch', which is not installed; install it with: {sys.executable} -m pip install" in done.stderr


def test_a_package_that_does_not_load_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12: cannot open shared object file')\n")
    arguments = ["run", "sim", "-o", str(tmp_path / "out"), "--frames", "1", "--backend", "openvino"]
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = {arguments!r}"
    script = f"{start}; import drive_seg.cli; drive_seg.cli.main()"
    done = python("-c", script, code=1)
    assert "which does not load: libtbb.so.12: cannot open shared object file; " in done.stderr
    assert "not installed" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("asked", "network"), [("auto", [128, 96]), ("model", [160, 96]), ("128x64", [128, 64])])
def test_the_network_takes_the_shape_of_the_images_unless_it_is_told(
    tmp_path: Path, asked: str, network: list[int]
) -> None:
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((48, 64, 3), np.uint8))
    sidecar = write_tiny_model(tmp_path, size=(160, 96))
    arguments = ("--source", tmp_path, "--frames", 2, "--backend", "onnxruntime", "--model", sidecar)
    found = last_object(drive_seg("benchmark", *arguments, "--network-size", asked, "--json"))
    assert found["input"] == [64, 48] and found["network"] == network


@pytest.mark.parametrize(
    ("size", "says"),
    [("100x60", "multiples of 32"), ("8192x8192", "limit of 8388608 pixels"), ("65536x32", "limit of 8388608 pixels")],
)
def test_a_network_size_that_cannot_be_is_bad_usage(tmp_path: Path, size: str, says: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    done = drive_seg("run", tmp_path, "-o", tmp_path / "out", "--network-size", size, code=2)
    said = " ".join(done.stderr.replace("│", " ").split())
    assert says in said and "--network-size" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("benchmark", "--frames", 10**11),
        ("benchmark", "--threads", 1025),
        ("sim", "--seed", 2**63, "-o", "out"),
        ("demo", "--seed", 2**63),
    ],
)
def test_a_number_beyond_what_can_be_held_is_bad_usage(arguments: tuple[object, ...]) -> None:
    assert f"{arguments[1]}'" in drive_seg(*arguments, code=2).stderr


def test_benchmark_leaves_out_images_that_cannot_be_read(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "in", ["b.png"])
    (tmp_path / "in/a.png").write_bytes(b"half a picture")
    arguments = ("--source", tmp_path / "in", "--frames", 1, "--backend", "onnxruntime", "--model", model)
    assert last_object(drive_seg("benchmark", *arguments, "--json"))["input"] == [WIDTH, HEIGHT]
    (tmp_path / "in/b.png").unlink()
    assert "no readable image among its first 1" in errors(drive_seg("benchmark", *arguments, code=1))[0]


def test_benchmark_has_the_contracts_keys(tmp_path: Path, model: Path) -> None:
    write_video(tmp_path / "in.mp4", 3)
    arguments = ("--source", tmp_path / "in.mp4", "--frames", 8, "--backend", "onnxruntime", "--model", model)
    found = last_object(drive_seg_process("benchmark", *arguments, "--json"))
    contract = "backend input network bare_ms pipeline_ms ratio fps stages_ms rss_growth_mb"
    assert set(contract.split()) <= set(found)
    assert found["input"] == [WIDTH, HEIGHT] and found["network"] == [WIDTH, HEIGHT]
    assert set(found["bare_ms"]) == set(found["pipeline_ms"]) == {"p50", "p99"}
    assert found["ratio"] == pytest.approx(found["pipeline_ms"]["p50"] / found["bare_ms"]["p50"], rel=0.05)
    assert set(found["stages_ms"]) == {"decode", "preprocess", "inference", "postprocess"}
