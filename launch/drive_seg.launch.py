"""The segmentation node: `ros2 launch drive_seg drive_seg.launch.py image_topic:=/my_camera/image_raw`.

`--show-args` lists the arguments. Those left empty keep what the parameter file says. The node configures
and activates itself; with `autostart:=false` it waits for `ros2 lifecycle set /drive_seg configure`, then
`activate`.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.substitutions import FindPackageShare

# Launch argument -> (node parameter, what it means).
TEXT_PARAMETERS = {
    "image_topic": ("front.image_topic", "Topic of the camera 'front'; CompressedImage where it ends in /compressed"),
    "camera_info_topic": ("front.camera_info_topic", "CameraInfo topic of the camera 'front'"),
    "model": ("model", "Name of an installed model, or the path of a model sidecar YAML"),
    "backend": ("backend", "auto, tensorrt, openvino or onnxruntime"),
    "precision": ("precision", "auto, fp32, fp16 or int8"),
    "network_size": ("network_size", "auto (the camera's shape), model (the sidecar's), or WxH, as 960x544"),
}
BOOLEAN_PARAMETERS = {
    "use_sim_time": ("use_sim_time", "Take the time from /clock: 'true' with a simulator or a played bag"),
    "autostart": ("autostart", "Configure and activate at start: 'true' or 'false'"),
}


def overrides(context):
    """The node parameters that were given as launch arguments."""
    parameters = {}
    for argument, (parameter, _) in TEXT_PARAMETERS.items():
        value = LaunchConfiguration(argument).perform(context)
        if value:
            parameters[parameter] = value
    for argument, (parameter, _) in BOOLEAN_PARAMETERS.items():
        value = LaunchConfiguration(argument).perform(context)
        if value:
            parameters[parameter] = value.lower() == "true"
    return parameters


def set_profile(context):
    # Jazzy and older read the first, Kilted and newer the second.
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    profile = LaunchConfiguration("dds_profile").perform(context)
    return [SetEnvironmentVariable(variable, profile) for variable in variables if profile]


def make_node(context):
    params_file = LaunchConfiguration("params_file").perform(context)
    if not Path(params_file).is_file():  # launch would warn, and the node serve other cameras than those asked for
        raise RuntimeError(f"params_file: there is no file {params_file!r}; expected the YAML file of the parameters")
    given = overrides(context)
    return [
        LifecycleNode(
            package="drive_seg",
            executable="segmentation_node",
            name=LaunchConfiguration("name"),
            namespace=LaunchConfiguration("namespace"),
            parameters=[params_file, *([given] if given else [])],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description():
    default_params = PathJoinSubstitution([FindPackageShare("drive_seg"), "config", "drive_seg.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("params_file", default_value=default_params, description="Parameter file"),
            DeclareLaunchArgument("name", default_value="drive_seg", description="Node name"),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of node and results; image_topic is absolute"
            ),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error"),
            DeclareLaunchArgument(
                "dds_profile",
                default_value="",
                description="Fast DDS profile (XML file); empty: that of the environment, else the node's own",
            ),
            *(
                DeclareLaunchArgument(argument, default_value="", description=description)
                for argument, (_, description) in TEXT_PARAMETERS.items()
            ),
            *(
                DeclareLaunchArgument(
                    argument,
                    default_value="",
                    description=description,
                    choices=["", "true", "false", "True", "False"],
                )
                for argument, (_, description) in BOOLEAN_PARAMETERS.items()
            ),
            OpaqueFunction(function=set_profile),
            OpaqueFunction(function=make_node),
        ]
    )
