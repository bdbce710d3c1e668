"""Build the Python side of vision_msgs from its .msg files, with setuptools instead of CMake.

vision_msgs is not on PyPI. The rosidl generators are: they arrive with the ROS 2 wheels (or a ROS 2
installation). For every message they make

    .msg -> .idl -> type hash -> C struct and functions -> Fast DDS and introspection type supports -> Python

and all of it is linked into one extension module, `vision_msgs_s__rosidl_typesupport_c`, under the name that
rclpy looks for. The type hashes equal those of the released vision_msgs 4.x, so both talk to each other.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template
from typing import Any

import numpy
import rosidl_adapter
from rosidl_adapter.msg import convert_msg_to_idl
from rosidl_generator_c import generate_c
from rosidl_generator_py import generate_py
from rosidl_generator_type_description import generate_type_hash
from rosidl_pycommon import convert_camel_case_to_lower_case_underscore as snake_case
from rosidl_typesupport_fastrtps_c import generate_typesupport_fastrtps_c
from rosidl_typesupport_introspection_c import generate_c as generate_introspection_c
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE, VERSION = "vision_msgs", "4.1.1"
DEPENDENCIES = ("std_msgs", "geometry_msgs", "builtin_interfaces")

HERE = Path(__file__).resolve().parent
# The generators' prefix, with share/, include/ and lib/: a virtual environment or /opt/ros/DISTRO.
PREFIX = Path(rosidl_adapter.__file__).resolve().parents[4]
GENERATED = HERE / "build" / "generated"
OUTPUT = GENERATED / PACKAGE
MESSAGES = sorted(path.stem for path in (HERE / "msg").glob("*.msg"))


def arguments_file(generator: str, output: Path = OUTPUT, **extra: Any) -> str:
    """Write the JSON file that a rosidl generator reads instead of arguments, and return its path."""
    arguments = {
        "package_name": PACKAGE,
        "output_dir": str(output),
        "template_dir": str(PREFIX / "share" / generator / "resource"),
        "idl_tuples": [f"{OUTPUT}:msg/{message}.idl" for message in MESSAGES],
        "ros_interface_dependencies": [
            f"{package}:{idl}" for package in DEPENDENCIES for idl in (PREFIX / "share" / package).glob("msg/*.idl")
        ],
        "target_dependencies": [],
        **extra,
    }
    path = GENERATED / f"{generator}.json"
    path.write_text(json.dumps(arguments))
    return str(path)


def generate() -> None:
    """Run every generator: fills GENERATED with C and C++ sources and OUTPUT with the Python package."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    for message in MESSAGES:
        convert_msg_to_idl(HERE, PACKAGE, Path("msg", f"{message}.msg"), OUTPUT / "msg")
    generate_type_hash(
        arguments_file(
            "rosidl_generator_type_description",
            include_paths=[f"{package}:{PREFIX / 'share' / package}" for package in DEPENDENCIES],
        )
    )
    generate_c(
        arguments_file(
            "rosidl_generator_c",
            ros_interface_files=[str(HERE / "msg" / f"{message}.msg") for message in MESSAGES],
            type_description_tuples=[f"msg/{message}.idl:{OUTPUT}/msg/{message}.json" for message in MESSAGES],
        )
    )
    generate_typesupport_fastrtps_c(arguments_file("rosidl_typesupport_fastrtps_c"))
    # Its files carry the same names as those of the Fast DDS type support: a folder of its own.
    generate_introspection_c(
        arguments_file("rosidl_typesupport_introspection_c", GENERATED / "introspection" / PACKAGE)
    )
    generate_py(arguments_file("rosidl_generator_py"), ["rosidl_typesupport_c"])
    write_dispatchers()
    write_visibility_headers()
    (OUTPUT / "__init__.py").touch()


def write_dispatchers() -> None:
    """One C file per message that finds its type supports inside this extension."""
    template = Template((HERE / "dispatch.c.in").read_text())
    for message in MESSAGES:
        source = template.substitute(package=PACKAGE, message=message, snake=snake_case(message))
        (OUTPUT / "msg" / f"{snake_case(message)}__dispatch.c").write_text(source)


def write_visibility_headers() -> None:
    """The export macros that CMake would configure."""
    for kind in ("generator_c", "typesupport_fastrtps_c", "typesupport_introspection_c"):
        generator = f"rosidl_{kind}"
        header = f"{generator}__visibility_control.h"
        text = (PREFIX / "share" / generator / "resource" / f"{header}.in").read_text()
        text = text.replace("@PROJECT_NAME@", PACKAGE).replace("@PROJECT_NAME_UPPER@", PACKAGE.upper())
        (OUTPUT / "msg" / header).write_text(text)


def libraries() -> list[str]:
    """Paths of the shared libraries to link: those of the message packages used, then the runtime's."""
    kinds = ("generator_c", "generator_py", "typesupport_fastrtps_c", "typesupport_introspection_c")
    names = [f"{package}__rosidl_{kind}" for package in DEPENDENCIES for kind in kinds]
    names += [
        "rosidl_typesupport_fastrtps_c",
        "rosidl_typesupport_fastrtps_cpp",
        "rosidl_typesupport_introspection_c",
        "rosidl_typesupport_c",
        "rosidl_runtime_c",
        "rcutils",
        "rmw",
        "fastcdr",
    ]
    return [library(name) for name in names]


def library(name: str) -> str:
    found = next((PREFIX / "lib").glob(f"lib{name}.so*"), None)
    if found is None:
        raise SystemExit(f"no lib{name}.so in {PREFIX / 'lib'}: is {PREFIX} a ROS 2 Jazzy or newer?")
    return str(found)


def extension() -> Extension:
    headers = PREFIX / "include"
    return Extension(
        f"{PACKAGE}.{PACKAGE}_s__rosidl_typesupport_c",
        sources=[
            os.path.relpath(source, HERE) for source in sorted([*GENERATED.rglob("*.c"), *GENERATED.rglob("*.cpp")])
        ],
        include_dirs=[
            str(GENERATED),
            str(GENERATED / "introspection"),
            str(headers),
            numpy.get_include(),
            *(str(folder) for folder in sorted(headers.iterdir()) if folder.is_dir()),
        ],
        extra_objects=libraries(),
        extra_compile_args=["-O1", "-g0"],
        extra_link_args=["-Wl,-rpath,$ORIGIN/../../..", "-Wl,--as-needed"],
        define_macros=[(f"ROSIDL_GENERATOR_C_BUILDING_DLL_{PACKAGE}", None)],
    )


class ParallelBuild(build_ext):
    """Compiles the files of the one extension side by side; setuptools takes them one by one."""

    def build_extension(self, ext: Extension) -> None:
        compile_files = self.compiler.compile

        def compile_side_by_side(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_files([source], **options), sources)
                return [path for paths in objects for path in paths]

        self.compiler.compile = compile_side_by_side
        super().build_extension(ext)


generate()
setup(
    name="drive-seg-vision-msgs",
    version=VERSION,
    description="vision_msgs for Python, built from its interface definitions",
    license="Apache-2.0",
    packages=[PACKAGE, f"{PACKAGE}.msg"],
    package_dir={PACKAGE: os.path.relpath(OUTPUT, HERE)},
    ext_modules=[extension()],
    cmdclass={"build_ext": ParallelBuild},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
)
