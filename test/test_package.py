"""The package as others meet it: manifests, installed files, launch files, and what importing it needs."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from drive_seg import resources
from drive_seg.errors import ConfigError, ModelError, pip_install
from drive_seg.ros.transport import PROFILE_VARIABLES

ROOT = Path(__file__).resolve().parent.parent

# What a distribution or a rosdep key is called where its name is not the module's.
ROSDEP_KEYS = {
    "cv2": "python3-opencv",
    "numpy": "python3-numpy",
    "scipy": "python3-scipy",
    "yaml": "python3-yaml",
    "typer": "python3-typer",
    "rich": "python3-rich",
    "matplotlib": "python3-matplotlib",
    "jinja2": "python3-jinja2",
}
# Installed by pip: not packaged by distributions, or not needed to run (README.md, extras of setup.py).
BY_PIP = {"openvino", "onnxruntime", "rosbags", "torch", "onnx", "onnxscript", "tensorrt", "pycuda", "pynvml", "ray"}
# Arrives with a declared dependency: rclpy's messages; what rosbags decompresses with.
WITH_ANOTHER = {"builtin_interfaces", "lz4", "backports", "compression"}

# What the core must do without, and the modules that are not core.
OPTIONAL = ("rclpy", "torch", "tensorrt", "pycuda", "rosbags", "openvino", "onnxruntime", "onnx", "matplotlib")
NOT_CORE = ("ros", "offline", "network", "engines", "cli", "__main__")


def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def imported_packages(path: Path) -> frozenset[str]:
    """The top-level names of all absolute imports of a file, also those inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return frozenset(names)


class TestManifests:
    def test_package_xml_is_an_ament_python_package_of_format_3(self) -> None:
        package = manifest()
        assert package.get("format") == "3"
        assert package.findtext("name") == "drive_seg"
        assert package.findtext("export/build_type") == "ament_python"
        assert package.findtext("license") == "Apache-2.0"
        assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")

    def test_weights_under_another_licence_have_theirs_in_the_manifest(self) -> None:
        """REP 149 wants a tag for each; who installs from a mirror of binaries reads nothing else."""
        licences = {yaml.safe_load(path.read_text())["license"] for path in (ROOT / "models").glob("*.yaml")}
        tags = [element.text for element in manifest().iter("license")]
        assert len(tags) == len(licences | {"Apache-2.0"}), licences
        assert f'license="{" AND ".join(map(str, tags))}"' in (ROOT / "setup.py").read_text()

    def test_one_version_everywhere(self) -> None:
        version = manifest().findtext("version")
        setup = re.search(r'^ *version="(.+)"', (ROOT / "setup.py").read_text(), re.MULTILINE)
        assert setup is not None
        assert version == setup.group(1)
        newest, *older = re.findall(r"^(.+)\n-+$", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)
        # A section of another title is nothing to bloom and catkin_prepare_release (REP 132).
        released = older if newest == "Forthcoming" else [newest, *older]
        assert all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", title) for title in released), released
        assert not released or released[0].split()[0] == version

    def test_every_import_has_a_dependency(self) -> None:
        declared = {element.text for element in manifest() if element.tag.endswith("depend")}
        allowed = set(sys.stdlib_module_names) | BY_PIP | WITH_ANOTHER | {"drive_seg"}
        undeclared = {
            f"{name} in {path.relative_to(ROOT)}"
            for path in [*python_files("drive_seg"), *python_files("launch")]
            for name in imported_packages(path) - allowed
            if ROSDEP_KEYS.get(name, name) not in declared
        }
        assert not undeclared, f"add to package.xml (and to setup.py): {sorted(undeclared)}"

    def test_rosdep_never_runs_pip(self) -> None:
        # As root, with --upgrade: on Ubuntu 22.04 it replaces the NumPy that the system's OpenCV is built against.
        keys = [element.text or "" for element in manifest() if element.tag.endswith("depend")]
        assert keys and not [key for key in keys if key.endswith("-pip")]

    @pytest.mark.parametrize("extra", ["offline", "cluster", "gpu", "train"])
    def test_messages_install_what_the_extra_has_for_the_python_that_runs(
        self, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said: dict[str, Any] = {}
        monkeypatch.setattr("drive_seg.errors.version", lambda package: "2.2.6")
        monkeypatch.setattr("setuptools.setup", said.update)
        monkeypatch.setattr("setuptools.find_packages", lambda **_: [])
        runpy.run_path(str(ROOT / "setup.py"))

        def bounds(requirements: list[str]) -> dict[str, set[str]]:
            found = [re.match(r"([\w.-]+)([^;]*)", requirement) for requirement in requirements]
            return {match[1]: {*match[2].strip().split(",")} - {""} for match in found if match}

        command = shlex.split(pip_install(extra=extra))
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        shown, declared = bounds(command[4:]), bounds(said["extras_require"][extra])
        assert shown.keys() == declared.keys()
        assert all(shown[name] <= declared[name] for name in shown), f"{shown} is not what setup.py has: {declared}"

    @pytest.mark.parametrize(("numpy", "pin"), [("1.21.5", ["numpy<2"]), ("1.26.4", ["numpy<2"]), ("2.2.6", [])])
    def test_a_numpy_that_ros_was_built_against_is_not_replaced(
        self, numpy: str, pin: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("drive_seg.errors.version", lambda package: numpy)
        assert shlex.split(pip_install("onnxruntime"))[4:] == ["onnxruntime", *pin]

    def test_the_replay_plays_what_it_is_said_to_play(self) -> None:
        """SQLite and compressed bags are opened by plugins that ros2bag does not ask for; rosbag2 does."""
        declared = {element.text for element in manifest() if element.tag.endswith("depend")}
        assert declared >= {"rosbag2", "rosbag2_storage_mcap"}

    def test_the_resource_index_marker_is_named_after_the_package(self) -> None:
        assert [path.name for path in (ROOT / "resource").iterdir()] == ["drive_seg"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's own files, as a clone has them: in ``src/drive_seg`` of a workspace."""
    sources = tmp_path_factory.mktemp("workspace") / "src" / "drive_seg"
    if shutil.which("git") is None:
        pytest.skip("no git: there is no list of the package's files")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if tracked.returncode != 0:
        pytest.skip("not a git checkout: there is no list of the package's files")
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).is_file():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_bytes((ROOT / name).read_bytes())
    return sources


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Path:
    """The package installed by pip into an empty folder, without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(folder), str(sources)], check=True)
    return folder


class TestInstalled:
    def test_share_has_everything(self, installed: Path) -> None:
        share = installed / "share" / "drive_seg"
        assert (installed / "share/ament_index/resource_index/packages/drive_seg").is_file()
        for folder, pattern in [
            ("launch", "*.launch.py"),
            ("config", "*.*"),
            ("models", "*.yaml"),
            ("models", "*.onnx"),
        ]:
            expected = {path.name for path in (ROOT / folder).glob(pattern) if path.is_file()}
            assert expected <= {path.name for path in (share / folder).glob(pattern)}
        assert (share / "package.xml").read_text() == (ROOT / "package.xml").read_text()

    def test_console_scripts_land_in_bin(self, installed: Path) -> None:
        assert {path.name for path in (installed / "bin").iterdir()} == {"drive_seg", "segmentation_node", "sim_camera"}

    def test_the_installed_package_finds_its_own_files(self, installed: Path) -> None:
        found = subprocess.run(
            [sys.executable, "-c", "from drive_seg.resources import share_dir; print(share_dir())"],
            env={**os.environ, "PYTHONPATH": str(installed)},
            cwd=installed,
            capture_output=True,
            text=True,
            check=True,
        )
        assert Path(found.stdout.strip()) == installed / "share" / "drive_seg"

    def test_the_type_marker_is_installed(self, installed: Path) -> None:
        assert (installed / "drive_seg" / "py.typed").is_file()


class TestColcon:
    """The build of a ROS workspace; colcon also comes from PyPI (``pip install colcon-ros``)."""

    @pytest.mark.parametrize("options", [[], ["--symlink-install"]])
    def test_a_workspace_has_what_ros2_run_and_launch_look_for(
        self, sources: Path, tmp_path: Path, options: list[str]
    ) -> None:
        beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        colcon = shutil.which("colcon", path=beside)
        if colcon is None:
            pytest.skip("colcon is not installed (pip install colcon-ros)")
        workspace = sources.parents[1]
        build = [colcon, "--log-base", str(tmp_path / "log"), "build", "--event-handlers", "console_direct+", *options]
        build += ["--build-base", str(tmp_path / "build"), "--install-base", str(tmp_path / "install")]
        done = subprocess.run(build, cwd=workspace, capture_output=True, text=True, env={**os.environ, "PATH": beside})
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.findall(r"Finished <<< (\S+)", done.stdout) == ["drive_seg"], "and no second package"

        prefix = tmp_path / "install" / "drive_seg"
        for folder, wanted in [
            ("lib/drive_seg", ["drive_seg", "segmentation_node", "sim_camera"]),
            ("share/drive_seg/launch", [path.name for path in (ROOT / "launch").iterdir() if path.suffix == ".py"]),
            ("share/drive_seg/models", [path.name for path in (ROOT / "models").iterdir() if path.suffix == ".onnx"]),
            ("share/ament_index/resource_index/packages", ["drive_seg"]),
        ]:
            found = {path.name for path in (prefix / folder).iterdir() if path.exists()}
            assert set(wanted) <= found, folder

        share = "from drive_seg.resources import share_dir; print(share_dir())"
        script = '. install/setup.sh && "$0" install/drive_seg/lib/drive_seg/drive_seg info --json && "$0" -c "$1"'
        command = ["sh", "-c", script, sys.executable, share]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
        assert {"default", "simulator"} <= set(json.loads(said[0])["models"])
        assert Path(said[1]) == (sources if options else prefix / "share" / "drive_seg")


class TestResources:
    def test_share_of_a_checkout_is_the_checkout(self) -> None:
        assert resources.share_dir() == ROOT

    def test_the_ament_index_is_the_last_resort(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        share = tmp_path / "overlay" / "share" / "drive_seg"
        share.mkdir(parents=True)
        (share / "package.xml").touch()
        monkeypatch.setattr(resources, "PACKAGE", tmp_path / "elsewhere" / "drive_seg")
        monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'underlay'}{os.pathsep}{tmp_path / 'overlay'}")
        assert resources.share_dir.__wrapped__() == share

    def test_a_lost_share_names_the_places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resources, "PACKAGE", tmp_path / "drive_seg")
        monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
        with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "share" / "drive_seg"))):
            resources.share_dir.__wrapped__()

    def test_models_by_name_and_by_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "models").mkdir()
        sidecar = tmp_path / "models" / "small.yaml"
        sidecar.touch()
        monkeypatch.setattr(resources, "share_dir", lambda: tmp_path)
        assert resources.find_model("small") == sidecar
        assert resources.find_model(str(sidecar)) == sidecar.resolve()
        assert resources.find_model(sidecar) == sidecar.resolve()
        with pytest.raises(ModelError, match=r"no model 'large'.*it has small"):
            resources.find_model("large")
        with pytest.raises(ModelError, match=r"no model sidecar at .*large\.yaml"):
            resources.find_model(tmp_path / "large.yaml")

    @pytest.mark.parametrize("name", ["~nobody_at_all/x.yaml", 300 * "a", 300 * "a" + ".yaml"])
    def test_a_name_that_no_file_can_have_is_no_model(self, name: str) -> None:
        with pytest.raises(ModelError, match=f"^no model .*{name}"):
            resources.find_model(name)

    def test_every_shipped_model_is_found_by_its_name(self) -> None:
        names = [path.stem for path in (ROOT / "models").glob("*.yaml")]
        assert [resources.find_model(name).stem for name in names] == names

    def test_config_files(self) -> None:
        assert resources.config_file("fastdds.xml") == ROOT / "config" / "fastdds.xml"
        with pytest.raises(ConfigError, match=r"no configuration file 'none.yaml'.*fastdds.xml"):
            resources.config_file("none.yaml")


class TestImports:
    def test_the_core_needs_no_optional_package(self) -> None:
        """The core is every module that is not of a layer with a heavy dependency: new ones are covered."""
        core = [
            "drive_seg" if path.stem == "__init__" else f"drive_seg.{path.stem}"
            for path in (ROOT / "drive_seg").glob("*.py")
            if path.stem not in NOT_CORE
        ] + ["drive_seg.engines"]
        script = f"""
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {OPTIONAL!r}:
            raise ImportError(f'{{name}} is not available to the core')
sys.meta_path.insert(0, Blocked())
for module in {sorted(core)!r}:
    importlib.import_module(module)
"""
        result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    def test_training_needs_torch_and_nothing_else_that_is_optional(self) -> None:
        """docs/training.md says so of the machine with a GPU; onnx is for starting from a model."""
        pytest.importorskip("torch", reason="torch is not installed (pip install 'drive_seg[train]')")
        script = f"""
import sys
sys.modules.update(dict.fromkeys({sorted({*OPTIONAL, "onnx", "scipy"} - {"torch"})!r}))
import drive_seg.network.__main__
"""
        result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    @pytest.mark.parametrize(
        ("package", "home"),
        [
            ("rclpy", ("drive_seg/ros/", "drive_seg/demo/")),
            ("rosbags", "drive_seg/offline/"),
            ("ray", "drive_seg/offline/"),
            ("torch", "drive_seg/network/"),
            ("openvino", "drive_seg/engines/"),
            ("onnxruntime", ("drive_seg/engines/", "drive_seg/network/precision.py")),
            ("tensorrt", "drive_seg/engines/"),
            ("pycuda", "drive_seg/engines/"),
        ],
    )
    def test_every_heavy_package_has_one_home(self, package: str, home: str | tuple[str, ...]) -> None:
        users = {
            path.relative_to(ROOT).as_posix()
            for path in python_files("drive_seg")
            if package in imported_packages(path)
        }
        assert {user for user in users if not user.startswith(home)} == set()

    def test_the_command_line_shows_its_help_without_the_libraries_of_its_commands(self) -> None:
        script = """
import sys
import drive_seg.cli
heavy = {'numpy', 'cv2', 'openvino', 'onnxruntime', 'torch', 'rclpy', 'rosbags', 'matplotlib'} & set(sys.modules)
sys.exit(f'imported for nothing: {heavy}' if heavy else 0)
"""
        result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    def test_every_argument_of_a_module_that_is_run_is_explained(self) -> None:
        for path in python_files("drive_seg"):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument":
                    assert "help" in [keyword.arg for keyword in call.keywords], f"{path}: {ast.unparse(call)}"

    def test_every_public_name_is_there_when_it_is_used(self) -> None:
        import drive_seg

        assert set(drive_seg.__all__) <= set(dir(drive_seg))
        for name in drive_seg.__all__:
            assert getattr(drive_seg, name).__name__ == name
        with pytest.raises(AttributeError, match="no attribute 'Pipline'"):
            _ = drive_seg.Pipline

    def test_ros_and_offline_do_not_know_each_other(self) -> None:
        for layer, other in [("ros", "offline"), ("offline", "ros")]:
            for path in python_files(f"drive_seg/{layer}"):
                assert not re.search(rf"\bdrive_seg\.{other}\b", path.read_text()), path


class Recorded:
    """Stands in for any class of launch and launch_ros: remembers how it was made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def perform(self, context: dict[str, str]) -> str:
        return context[self.args[0]]

    def evaluate(self, context: dict[str, str]) -> Any:
        """Of a condition or a ParameterValue."""
        text = self.args[0].perform(context)
        return self.kwargs["value_type"](text) if self.kwargs else text == "true"


@pytest.fixture
def launch_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importable stand-ins for the parts of launch and launch_ros that the launch files use."""
    provided = {
        "launch": ["LaunchDescription"],
        "launch.actions": [
            "DeclareLaunchArgument",
            "ExecuteProcess",
            "IncludeLaunchDescription",
            "LogInfo",
            "OpaqueFunction",
            "RegisterEventHandler",
            "SetEnvironmentVariable",
            "Shutdown",
            "TimerAction",
        ],
        "launch.conditions": ["IfCondition"],
        "launch.event_handlers": ["OnProcessExit"],
        "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
        "launch.substitutions": ["LaunchConfiguration", "PathJoinSubstitution"],
        "launch_ros": [],
        "launch_ros.actions": ["LifecycleNode", "Node"],
        "launch_ros.parameter_descriptions": ["ParameterValue"],
        "launch_ros.substitutions": ["FindPackagePrefix", "FindPackageShare"],
    }
    for name, classes in provided.items():
        module = types.ModuleType(name)
        for class_name in classes:
            setattr(module, class_name, type(class_name, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, name, module)


def launch_names(name: str) -> dict[str, Any]:
    """What a launch file defines."""
    return runpy.run_path(str(ROOT / "launch" / name))


def describe(name: str) -> list[Any]:
    """The actions of a launch file."""
    return launch_names(name)["generate_launch_description"]().args[0]


def arguments(actions: list[Any]) -> dict[str, str]:
    """Launch argument -> description."""
    return {
        action.args[0]: action.kwargs["description"]
        for action in actions
        if type(action).__name__ == "DeclareLaunchArgument"
    }


@pytest.mark.usefixtures("launch_modules")
class TestLaunchFiles:
    def test_every_launch_file_is_tested_here(self) -> None:
        names = {path.name for path in (ROOT / "launch").glob("*.launch.py")}
        assert names == {"drive_seg.launch.py", "demo.launch.py", "replay.launch.py"}

    def test_arguments_of_the_node(self) -> None:
        described = arguments(describe("drive_seg.launch.py"))
        assert set(described) == {
            "params_file",
            "namespace",
            "name",
            "image_topic",
            "camera_info_topic",
            "model",
            "backend",
            "precision",
            "network_size",
            "use_sim_time",
            "autostart",
            "log_level",
            "dds_profile",
        }
        assert all(described.values())

    def test_only_given_arguments_override_the_parameter_file(self) -> None:
        actions = describe("drive_seg.launch.py")
        context = {**dict.fromkeys(arguments(actions), ""), "params_file": __file__}
        make_node = actions[-1].kwargs["function"]

        (node,) = make_node(context)
        assert node.kwargs["executable"] == "segmentation_node"
        assert node.kwargs["parameters"] == [__file__]

        (node,) = make_node(
            {**context, "backend": "openvino", "image_topic": "/a", "use_sim_time": "True", "autostart": "false"}
        )
        assert node.kwargs["parameters"][1] == {
            "backend": "openvino",
            "front.image_topic": "/a",
            "use_sim_time": True,
            "autostart": False,
        }

    @pytest.mark.parametrize("missing", ["/nowhere/cameras.yaml", "", "/tmp"])
    def test_a_parameter_file_that_is_not_there_is_refused(self, missing: str) -> None:
        """launch itself warns, and the node would run with its defaults."""
        make_node = describe("drive_seg.launch.py")[-1].kwargs["function"]
        with pytest.raises(RuntimeError, match=f"params_file: there is no file '{missing}'"):
            make_node({"params_file": missing})

    def test_a_profile_is_set_for_every_distribution_where_one_is_given(self) -> None:
        set_profile = describe("drive_seg.launch.py")[-2].kwargs["function"]
        assert set_profile({"dds_profile": ""}) == []
        variables = [action.args for action in set_profile({"dds_profile": "/home/o'neil/dds.xml"})]
        assert variables == [(name, "/home/o'neil/dds.xml") for name in PROFILE_VARIABLES]

    def test_overridden_parameters_exist(self) -> None:
        """Each name that the launch file sets is one of config/drive_seg.yaml (use_sim_time is every node's)."""
        actions = describe("drive_seg.launch.py")
        context = {**dict.fromkeys(arguments(actions), "x"), "use_sim_time": "", "autostart": "true"}
        context["params_file"] = __file__
        (node,) = actions[-1].kwargs["function"](context)
        (defaults,) = yaml.safe_load((ROOT / "config" / "drive_seg.yaml").read_text()).values()
        for name in node.kwargs["parameters"][1]:
            value = defaults["ros__parameters"]
            for part in name.split("."):
                assert part in value, f"{name} is not a parameter of config/drive_seg.yaml"
                value = value[part]

    def test_demo_starts_camera_and_node(self) -> None:
        actions = describe("demo.launch.py")
        described = arguments(actions)
        assert set(described) == {"source", "width", "height", "rate", "seed", "weather", "rviz"}
        assert all(described.values())
        kinds = [type(action).__name__ for action in actions if type(action).__name__ != "DeclareLaunchArgument"]
        assert kinds == ["OpaqueFunction", "IncludeLaunchDescription", "OpaqueFunction", "Node"]
        make_camera = actions[-2].kwargs["function"]
        (simulator,), (video,) = make_camera({"source": ""}), make_camera({"source": "/a b/drive.mp4"})
        assert simulator.kwargs["executable"] == video.kwargs["executable"] == "sim_camera"
        given, ahead = simulator.kwargs["parameters"]
        assert given.keys() == set(described) - {"rviz"} and 0 < ahead["prerender"] < ahead["hold"]
        assert video.kwargs["parameters"][1] == {}  # its first images would be played again and again

    def test_demo_finds_mistakes_before_anything_runs(self) -> None:
        """launch ends at an error; the processes that it has started by then go on without it."""
        actions = describe("demo.launch.py")
        declared = [action for action in actions if type(action).__name__ == "DeclareLaunchArgument"]
        defaults = {action.args[0]: action.kwargs["default_value"] for action in declared}
        check = actions[len(declared)].kwargs["function"]  # the node comes next: it looks for params_file
        check(defaults)
        check({**defaults, "rviz": "true", "rviz2": "/opt/ros/jazzy"})
        with pytest.raises(KeyError, match="rviz2"):
            check({**defaults, "rviz": "true"})
        with pytest.raises(ValueError, match="fast"):
            check({**defaults, "rate": "fast"})

    def test_replay_plays_the_bag_and_ends_with_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        actions = describe("replay.launch.py")
        described = arguments(actions)
        assert set(described) == {"bag", "out", "rate", "delay", "record"}
        assert all(described.values())
        required = [
            action.args[0]
            for action in actions
            if type(action).__name__ == "DeclareLaunchArgument" and "default_value" not in action.kwargs
        ]
        assert required == ["bag"]
        segmentation, set_profile, record, play, end = actions[-5:]
        assert dict(segmentation.kwargs["launch_arguments"]) == {"use_sim_time": "true"}
        for variable in PROFILE_VARIABLES:
            monkeypatch.setenv(variable, "theirs.xml")
        set_profile.kwargs["function"]({})
        assert {os.environ[variable] for variable in PROFILE_VARIABLES} == {"theirs.xml"}
        for variable in (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS", "RMW_IMPLEMENTATION"):
            monkeypatch.delenv(variable, raising=False)
        (line,) = set_profile.kwargs["function"]({})
        assert all(os.environ.get(variable, "nothing") in line.kwargs["msg"] for variable in PROFILE_VARIABLES)
        make_recorder = record.kwargs["function"]
        assert make_recorder({"out": "", "record": ".*"}) == []
        (recorder,) = make_recorder({"out": "Jan's drive", "record": "/segmentation/.*"})
        assert recorder.kwargs["cmd"][:3] == ["ros2", "bag", "record"]
        assert recorder.kwargs["cmd"][-3:] == ["/segmentation/.*", "--output", "Jan's drive"]
        assert play.kwargs["cmd"][:3] == ["ros2", "bag", "play"] and "--clock" in play.kwargs["cmd"]
        handler = end.args[0]
        assert handler.kwargs["target_action"] is play
        (timer,) = handler.kwargs["on_exit"]
        assert [type(action).__name__ for action in timer.kwargs["actions"]] == ["Shutdown"]

    def test_no_argument_of_an_including_file_hides_one_of_the_node(self) -> None:
        node = set(arguments(describe("drive_seg.launch.py")))
        for name in ("demo.launch.py", "replay.launch.py"):
            assert not node & set(arguments(describe(name))), name

    def test_demo_arguments_have_the_defaults_of_the_camera(self) -> None:
        pytest.importorskip("rclpy")
        from drive_seg.ros.sim_camera import PARAMETERS

        camera = {parameter.name: parameter.default for parameter in PARAMETERS}
        arguments_of_the_camera = launch_names("demo.launch.py")["CAMERA_ARGUMENTS"]
        for name, (kind, default, _) in arguments_of_the_camera.items():
            assert type(camera[name]) is kind
            assert kind(default) == camera[name]


class TestViews:
    TOPICS = frozenset(
        [
            "/camera/image_raw",
            "/camera/camera_info",
            "/diagnostics",
            "/drive_seg/debug/processing_time_ms",
            "/drive_seg/debug/pipeline_latency_ms",
            "/drive_seg/debug/cyclic_time_ms",
        ]
        + [f"/segmentation/{name}" for name in ("overlay", "mask", "panoptic", "confidence", "instances", "lanes")]
    )

    def test_rviz_shows_the_segmentation_topics(self) -> None:
        view = yaml.safe_load((ROOT / "config" / "drive_seg.rviz").read_text())
        displays = view["Visualization Manager"]["Displays"]
        topics = {display["Topic"]["Value"] for display in displays}
        assert {"segmentation/overlay", "segmentation/mask"} <= topics
        assert {name if name.startswith("/") else f"/{name}" for name in topics} <= self.TOPICS

    @pytest.mark.usefixtures("launch_modules")
    def test_rviz_looks_where_the_node_of_the_demo_publishes(self) -> None:
        """Only the results follow the namespace; the camera of the demo has none."""
        rviz = describe("demo.launch.py")[-1]
        assert rviz.kwargs["executable"] == "rviz2" and rviz.kwargs["namespace"].args == ("namespace",)
        view = yaml.safe_load((ROOT / "config" / "drive_seg.rviz").read_text())
        names = [display["Topic"]["Value"] for display in view["Visualization Manager"]["Displays"]]
        assert all(name.startswith("segmentation/") or name == "/camera/image_raw" for name in names)

    def test_foxglove_layout_shows_the_segmentation_topics(self) -> None:
        text = (ROOT / "config" / "foxglove_layout.json").read_text()
        layout = json.loads(text)
        named = set(re.findall(r'"(/[a-z_/]+)(?:\.data)?"', text))
        assert {"/segmentation/overlay", "/drive_seg/debug/processing_time_ms", "/diagnostics"} <= named <= self.TOPICS
        assert set(re.findall(r'"([A-Za-z]+![a-z]+)"', json.dumps(layout["layout"]))) == set(layout["configById"])

    def test_fastdds_profile_holds_a_full_hd_image(self) -> None:
        profile = ElementTree.parse(ROOT / "config" / "fastdds.xml")
        sizes = {
            element.tag.rpartition("}")[2]: int(element.text or 0)
            for element in profile.iter()
            if element.tag.endswith(("segment_size", "maxMessageSize"))
        }
        image = 1920 * 1080 * 3
        assert sizes["maxMessageSize"] > image
        assert sizes["segment_size"] >= 4 * image


RCLPY = {
    "rclpy": {"init"},
    "rclpy.clock": {"Clock", "ClockType"},
    "rclpy.exceptions": {"InvalidParameterTypeException", "InvalidParameterValueException", "ParameterException"},
    "rclpy.executors": {"SingleThreadedExecutor"},
    "rclpy.impl.implementation_singleton": {"rclpy_implementation"},
    "rclpy.lifecycle": {"LifecycleNode", "LifecycleState", "TransitionCallbackReturn"},
    "rclpy.logging": {"get_logger"},
    "rclpy.node": {"Node"},
    "rclpy.parameter": {"Parameter"},
    "rclpy.publisher": {"Publisher"},
    "rclpy.qos": {"DurabilityPolicy", "HistoryPolicy", "LivelinessPolicy", "ReliabilityPolicy", "QoSPolicyKind"}
    | {"QoSPresetProfiles", "QoSProfile", "qos_profile_sensor_data"},
    "rclpy.qos_overriding_options": {"QoSOverridingOptions"},
    "rclpy.signals": {"SignalHandlerOptions"},
    "rclpy.subscription": {"Subscription"},
    "rclpy.utilities": {"ok", "try_shutdown"},
}
"""What is used of rclpy, every name of it imported from 3.3 (Humble), 7.1 (Jazzy) and 9.1 (Kilted)."""


def test_of_rclpy_only_what_every_distribution_has_is_imported() -> None:
    """Others than Jazzy's are not there when these tests usually run: look there before a name is added."""
    used: dict[str, set[str]] = {}
    for path in (ROOT / "drive_seg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rclpy":
                used.setdefault(node.module or "", set()).update(alias.name for alias in node.names)
            elif isinstance(node, ast.Import):
                for name in (alias.name for alias in node.names if alias.name.partition(".")[0] == "rclpy"):
                    used.setdefault(name, set())
    assert used == RCLPY


@pytest.mark.parametrize("name", ["launch_testing", "launch_ros"])
def test_pytest_runs_beside_the_plugins_of_a_sourced_ros(tmp_path: Path, name: str) -> None:
    """Theirs have an argument that pytest 9 does not know any more."""
    (tmp_path / "theirs.py").write_text("def pytest_pycollect_makemodule(path, parent): ...\n")
    found = tmp_path / "theirs-1.0.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (found / "entry_points.txt").write_text(f"[pytest11]\n{name} = theirs\n")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "test/test_vocabulary.py"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("name", ["it's mine.mp4", 'a, "b" (c) & d; e', "–`ls`"])
def test_make_hands_on_names_of_any_characters(tmp_path: Path, name: str) -> None:
    said = tmp_path / "said"
    stand_in = tmp_path / "drive_seg"
    stand_in.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{said}"\n')
    stand_in.chmod(0o755)
    given = [f"SOURCE={name}", "SECONDS=7", f"OUT=out/{name}", f"BIN={tmp_path}"]
    subprocess.run(["make", "--old-file=venv", "demo", *given], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert said.read_text().splitlines() == ["demo", "--source", name, "--seconds", "7", "--out", f"out/{name}"]
