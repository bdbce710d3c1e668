"""Packaging for both worlds: `pip install .` and `colcon build` (ament_python)."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

NAME = "drive_seg"
SHARE = f"share/{NAME}"

# ROS 2 Jazzy from PyPI. The wheels exist for x86-64 Linux only; elsewhere ROS 2 has to be installed itself.
HAS_ROS_WHEELS = "; sys_platform == 'linux' and platform_machine == 'x86_64'"
ROS = [
    f"ros-rclpy[fastrtps]~=7.1.6{HAS_ROS_WHEELS}",
    f"ros-sensor-msgs~=5.3.6{HAS_ROS_WHEELS}",
    f"ros-std-msgs~=5.3.6{HAS_ROS_WHEELS}",
    f"ros-geometry-msgs~=5.3.6{HAS_ROS_WHEELS}",
    f"ros-diagnostic-msgs~=5.3.6{HAS_ROS_WHEELS}",
    f"ros-lifecycle-msgs~=2.0.3{HAS_ROS_WHEELS}",
    f"ros-rcl-interfaces~=2.0.3{HAS_ROS_WHEELS}",
]
OFFLINE = ["rosbags>=0.11.7,<0.12", "matplotlib>=3.6.2", "jinja2>=3.0", "av>=12"]
# setuptools: tests build the package, and Pythons from 3.12 on come without it; the first that makes wheels by itself.
TEST = ["pytest>=7.4", "hypothesis>=6.80", "setuptools>=70.1"]


def shared_files(*patterns: str) -> list[tuple[str, list[str]]]:
    """The files of these patterns as data_files entries, one for each folder (it does not copy folders)."""
    folders: dict[str, list[str]] = {}
    for path in sorted(path for pattern in patterns for path in Path().glob(pattern)):
        folders.setdefault(path.parent.as_posix(), []).append(path.as_posix())
    return [(f"{SHARE}/{folder}", files) for folder, files in folders.items()]


setup(
    name=NAME,
    version="0.1.0",
    description="Real-time panoptic segmentation of road scenes for ROS 2",
    author="drive_seg maintainers",
    maintainer="drive_seg maintainers",
    maintainer_email="maintainers@users.noreply.github.com",
    license="Apache-2.0 AND LicenseRef-Research-Non-Commercial",  # the latter: weights of models/default.yaml
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "engines/kernels/*.cu*", "offline/templates/*.j2"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        *shared_files("launch/*.launch.py", "config/**/*.*", "models/*.yaml", "models/*.onnx"),
    ],
    install_requires=[
        "numpy>=1.24,<3",
        "scipy>=1.10,<2",
        "opencv-python-headless>=4.6,<6",
        "PyYAML>=6.0",
        "onnxruntime>=1.18,<2",
        # No wheels for the other platforms; ONNX Runtime serves them.
        "openvino>=2024.4; platform_machine in 'x86_64 AMD64 aarch64 arm64'",
        # Older ones do not keep pip from click 8.2, which they fail with; Ubuntu 24.04 has 0.9 with a click that fits.
        "typer>=0.15.4",
        "rich>=13",
    ],
    extras_require={
        "ros": ROS,
        # pycuda: the first that builds with CUDA 13. onnx: int8 graphs are rewritten for TensorRT.
        "gpu": [
            "tensorrt>=8.6,<12; sys_platform == 'linux'",
            "pycuda>=2025.1.2; sys_platform == 'linux'",
            "nvidia-ml-py>=12; sys_platform == 'linux'",
            "onnx>=1.16",
        ],
        "train": ["torch>=2.5", "onnx>=1.16"],
        "offline": OFFLINE,
        "cluster": [*OFFLINE, "ray>=2.9"],
        "test": TEST,
        "dev": [
            *TEST,
            "onnx>=1.16",
            # A newer release of these finds other things in the same code.
            "ruff>=0.17,<0.18",
            "motmetrics>=1.4",  # what our identity figures are compared with
            "nvidia-ml-py>=12",
            "mypy>=2.4,<2.5",
            "types-PyYAML>=6.0.12",
            "numpy<2.5",
            "opencv-python-headless<5.1",
        ],
    },
    entry_points={
        "console_scripts": [
            "drive_seg = drive_seg.executables:command_line",
            "segmentation_node = drive_seg.executables:segmentation_node",
            "sim_camera = drive_seg.executables:sim_camera",
        ],
    },
    zip_safe=False,
)
