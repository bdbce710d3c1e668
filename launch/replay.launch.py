"""A recorded drive through the node, live: `ros2 launch drive_seg replay.launch.py bag:=drive.mcap out:=segmented`.

Plays the bag with its clock, records the node's topics into `out`, and ends when the bag does. Frames are dropped
where this machine is slower than the bag; `drive_seg run` drops none and needs no ROS.

Every argument of drive_seg.launch.py works here too, for example `image_topic:=/front/image_raw`.
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from drive_seg.ros.transport import choose_profile

# Launch argument -> (default or None where it must be given, what it means).
ARGUMENTS = {
    "bag": (None, "Bag to play"),
    "out": ("", "Bag to record into; empty records nothing"),
    "rate": ("1.0", "Speed of playing; below 1 gives a slow machine time for every frame"),
    "delay": ("5.0", "Seconds until playing starts, for the node to load its model"),
    "record": ("/segmentation/.*", "Regular expression of the topics to record; '.*' takes the played ones too"),
}

LAST_FRAMES_S = 2.0


def set_profile(context):
    """For `ros2 bag`, as for the node: the usual shared memory of Fast DDS holds no image, and every fifth is lost."""
    return [LogInfo(msg=f"ros2 bag: {choose_profile()}")]


def make_recorder(context):
    """Nothing where `out` is empty."""
    out, topics = (LaunchConfiguration(name).perform(context) for name in ("out", "record"))
    command = ["ros2", "bag", "record", "--use-sim-time", "--regex", topics, "--output", out]
    return [ExecuteProcess(cmd=command, output="screen")] if out else []


def generate_launch_description():
    given = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    play = ExecuteProcess(
        cmd=["ros2", "bag", "play", given["bag"], "--clock", "--rate", given["rate"], "--delay", given["delay"]],
        output="screen",
    )
    segmentation = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([FindPackageShare("drive_seg"), "launch", "drive_seg.launch.py"])
        ),
        launch_arguments={"use_sim_time": "true"}.items(),
    )
    end = TimerAction(period=LAST_FRAMES_S, actions=[Shutdown(reason="the bag has ended")])
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name, description=description, **({} if default is None else {"default_value": default})
                )
                for name, (default, description) in ARGUMENTS.items()
            ),
            segmentation,
            OpaqueFunction(function=set_profile),
            OpaqueFunction(function=make_recorder),
            play,
            RegisterEventHandler(OnProcessExit(target_action=play, on_exit=[end])),
        ]
    )
