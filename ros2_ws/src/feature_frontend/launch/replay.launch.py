"""The front-end on every image of a bag: `ros2 launch feature_frontend replay.launch.py bag:=FOLDER`.

The player starts once the front-end has subscribed; the launch ends when the player is done and the front-end's queue
is empty. With `stereo:=true`, the bag is from two cameras.
"""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from launch import Event, LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import ExecuteProcess, OpaqueCoroutine, RegisterEventHandler
from launch.event_handler import EventHandler
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.logging import get_logger
from launch_ros.actions import Node
from launch_ros.descriptions import Parameter

from feature_frontend.errors import SettingsError, SourceError
from feature_frontend.ros.playback.launch_arguments import Argument, Launched, launch_description
from feature_frontend.ros.playback.launch_support import (
    PACKAGE,
    SIDES,
    common_arguments,
    config_file,
    dds_environment,
    ends_launch,
    frontend_node,
    on_exit_of,
    required_package,
    stereo_params_file,
    topic_arguments,
    topic_remappings,
)
from feature_frontend.ros.playback.replay_watch import ReplayWatch

# Time for publisher and subscriber to discover each other with FastDDS's defaults; rosbag2 does not wait.
DISCOVERY_S = 3.5
ACKNOWLEDGEMENT_MS = 5000


class FrontendListens(Event):
    """The front-end has subscribed to its images."""

    name = f"{PACKAGE}.FrontendListens"


def start(launched: Launched) -> list[Action]:
    """The actions for the given arguments."""
    arguments = launched.arguments
    sides = SIDES if is_stereo(launched) else ("",)
    pairs = (arguments["stereo_params_file"],) if is_stereo(launched) else ()
    frontend = frontend_node(
        launched,
        remappings=[rule for side in sides for rule in topic_remappings(launched, side=side)],
        further_params_files=(*pairs, arguments["replay_params_file"]),
        parameters=[Parameter("use_sim_time", value=True)],
    )
    player_is_done = asyncio.Event()
    end_with_player = on_exit_of(launched, "the player")

    def on_player_exit(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if event.returncode == 0:
            player_is_done.set()
            return []
        return end_with_player(event, context)

    player = PLAYERS[arguments["player"]](launched, on_player_exit)
    return [
        RegisterEventHandler(EventHandler(matcher=lambda event: isinstance(event, FrontendListens), entities=[player])),
        frontend,
        OpaqueCoroutine(coroutine=follow, args=[launched, frontend, player_is_done]),
    ]


def is_stereo(launched: Launched) -> bool:
    """Whether the bag is from two cameras."""
    return launched.arguments["stereo"] == "true"


def bag_player(launched: Launched, on_exit: object) -> Action:
    """`ros2 bag play`."""
    arguments = launched.arguments
    required_package("ros2bag", wanted_by="player:=bag", instead="take this package's own player with player:=play")
    if not Path(arguments["bag"]).expanduser().exists():
        raise SourceError(f"no bag at {arguments['bag']!r}; expected the folder of a rosbag2, or an .mcap or .db3 file")
    return ExecuteProcess(
        cmd=[
            *(
                "ros2",
                "bag",
                "play",
                str(Path(arguments["bag"]).expanduser()),
                "--clock",
                "--disable-keyboard-controls",
            ),
            *("--delay", str(DISCOVERY_S), "--wait-for-all-acked", str(ACKNOWLEDGEMENT_MS)),
            *shlex.split(arguments["player_args"]),
        ],
        additional_env=dds_environment(launched),
        output="screen",
        on_exit=on_exit,
    )


def play_player(launched: Launched, on_exit: object) -> Action:
    """This package's `play`, which also plays folders of images and videos."""
    arguments = launched.arguments
    if is_stereo(launched):
        raise SettingsError("player:=play has one camera's images; expected player:=bag with stereo:=true")
    return Node(
        package=PACKAGE,
        executable="play",
        namespace=arguments["namespace"],
        arguments=[
            *(arguments["bag"], "--clock", "--wait-for-subscribers", "1", "--in-step-with", "status"),
            *shlex.split(arguments["player_args"]),
        ],
        remappings=topic_remappings(launched),
        additional_env=dds_environment(launched),
        output="screen",
        on_exit=on_exit,
    )


PLAYERS = {"bag": bag_player, "play": play_player}


async def follow(context: LaunchContext, launched: Launched, frontend: Node, player_is_done: asyncio.Event) -> None:
    """Starts the player once the front-end has subscribed, and ends the launch when all frames are processed."""
    log = get_logger("replay")
    # For stereo, count the left images.
    image_topic = launched.arguments["left_image_topic" if is_stereo(launched) else "image_topic"]
    try:
        with ReplayWatch(frontend.expanded_node_namespace, image_topic) as watch:
            await watch.until_listening()
            log.info(f"the front-end listens to {watch.image_topic}: starting the player")
            await context.emit_event(FrontendListens())
            await watch.until(player_is_done.is_set)
            log.info("the player is done: waiting for the front-end to work off its queue")
            in_step = launched.arguments["player"] == "play"
            status = await watch.until_idle(every_image_is_answered=in_step)
    except asyncio.CancelledError:
        # A launch that ends early cancels this coroutine; re-raised, launch would fail as if cancelled itself.
        return
    log.info(
        f"{status.frames_received} images received: {status.frames_processed} processed, "
        f"{status.frames_dropped} dropped, {status.frames_refused} refused"
    )
    if ends_launch(launched):
        await context.emit_event(Shutdown(reason="the replay is over"))


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments and the actions."""
    return launch_description(
        [
            Argument(
                "bag",
                description="What to play: a rosbag2; with player:=play also a folder of images, a dataset or a video",
            ),
            Argument(
                "player",
                default_value="bag",
                choices=list(PLAYERS),
                description="bag: `ros2 bag play`; play: this package's own, for machines without rosbag2",
            ),
            Argument(
                "player_args",
                default_value="",
                description="Further arguments of the player, such as '--rate 0.5'",
            ),
            *common_arguments(),
            *topic_arguments(),
            Argument(
                "stereo",
                default_value="false",
                choices=["true", "false"],
                description="true: the bag is from two cameras; the arguments left_* and right_* name their topics",
            ),
            *(argument for side in SIDES for argument in topic_arguments(side)),
            stereo_params_file(),
            Argument(
                "replay_params_file",
                default_value=str(config_file("replay.yaml")),
                description="Parameter file that overrides params_file, with the settings for a replay",
            ),
        ],
        start,
    )
