"""The simulated camera and the segmentation node: `ros2 launch drive_seg demo.launch.py rviz:=true`.

`source:=drive.mp4` plays a video in its place.

Every argument of drive_seg.launch.py works here too, for example `backend:=onnxruntime`.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackagePrefix, FindPackageShare

# Launch argument -> (type of the sim_camera parameter of that name, default, what it means).
CAMERA_ARGUMENTS = {
    "source": (str, "", "Video, image folder, device or URL to play; empty is the simulator"),
    "width": (int, "1280", "Width of the simulated image in pixels"),
    "height": (int, "720", "Height of the simulated image in pixels"),
    "rate": (float, "0.0", "Images per second; 0: the rate of the source (simulator: 30)"),
    "seed": (int, "0", "Seed of the simulator: the same one gives the same drive"),
    "weather": (str, "", "clear, overcast, dusk, night, rain or fog; empty: any of them, by the seed"),
}

# Drawing the simulator's images takes a core: ahead, and from then on in time that nobody else wants.
AHEAD = {"prerender": 90, "hold": 180}


def camera_parameters():
    return {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _, _) in CAMERA_ARGUMENTS.items()
    }


def check(context):
    """Before anything runs: launch ends at an error, and what it has started by then goes on without it."""
    for value in camera_parameters().values():
        value.evaluate(context)
    if IfCondition(LaunchConfiguration("rviz")).evaluate(context):
        FindPackagePrefix("rviz2").perform(context)


def make_camera(context):
    """Of a video no image is drawn."""
    ahead = {} if LaunchConfiguration("source").perform(context) else AHEAD
    return [
        Node(
            package="drive_seg",
            executable="sim_camera",
            name="sim_camera",
            parameters=[camera_parameters(), ahead],
            output="screen",
        )
    ]


def generate_launch_description():
    share = FindPackageShare("drive_seg")
    segmentation = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([share, "launch", "drive_seg.launch.py"]))
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),  # of the node: the results in drive_seg.rviz have relative names
        arguments=["-d", PathJoinSubstitution([share, "config", "drive_seg.rviz"])],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (_, default, description) in CAMERA_ARGUMENTS.items()
            ),
            DeclareLaunchArgument("rviz", default_value="false", description="Show the result in RViz"),
            OpaqueFunction(function=check),
            segmentation,  # first: it looks for params_file
            OpaqueFunction(function=make_camera),
            rviz,
        ]
    )
