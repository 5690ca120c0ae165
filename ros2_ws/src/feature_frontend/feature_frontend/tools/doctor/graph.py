"""Checks of the running ROS graph: the chosen topics, their QoS, an image, its calibration, and the clock.

For stereo, checks each camera separately, then both together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.signals import SignalHandlerOptions
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from feature_frontend.camera.calibration import CameraCalibration, calibration_from_message
from feature_frontend.errors import CalibrationError, ImageError
from feature_frontend.ros.input.camera_info_topic import CameraInfoTopic
from feature_frontend.ros.input.image_conversion import image_to_array
from feature_frontend.ros.output.name_watch import NAME_ADVICE, namesakes
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.runtime.input_loss import LARGE_IMAGE_BYTES
from feature_frontend.runtime.stereo_sync import SIDES
from feature_frontend.settings import Settings
from feature_frontend.tools.doctor.finding import Finding, Verdict, fail, ok, warn
from feature_frontend.tools.doctor.lost_images import advice_on, check_stamps_for_loss
from feature_frontend.tools.doctor.stereo import check_message_filters, check_rig, check_stamps

__all__ = ["GraphOptions", "check_graph"]

IMAGE_TYPES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
STATUS_TYPE = "feature_frontend_msgs/msg/FrameStatus"
_UNKNOWN_NAME = "_NODE_NAME_UNKNOWN_"  # of an endpoint discovered before its node
_POLL_S = 0.05
_NS_PER_S = 1_000_000_000
_S_PER_DAY = 86_400
# Camera, driver and network delay images by less; unsynchronised clocks differ by more.
_FAR_S = 5.0
_ENOUGH_IMAGES = 30
_ASKED = ("use_sim_time", "camera_type", "stereo_slop_ms", "rectified")
_VERDICTS = {b"\x00": Verdict.OK, b"\x01": Verdict.WARN, b"\x02": Verdict.FAIL, b"\x03": Verdict.WARN}


@dataclass(frozen=True)
class GraphOptions:
    """What to check.

    Attributes:
        image_topics: Of the camera, or of the left and the right one; empty: those of a running front-end, else
            `image`, or `left/image` and `right/image`.
        camera_info_topics: Of their calibrations, in the same order; empty: as above, else next to the images.
        settings: Of the node, unless a running one reports its own.
        timeout_s: Timeout for the graph, for an image, and for each other wait.
        has_room: Whether the middleware was found to support large images.
    """

    image_topics: Sequence[str]
    camera_info_topics: Sequence[str]
    settings: Settings
    timeout_s: float
    has_room: bool


def check_graph(options: GraphOptions) -> Iterator[Finding]:
    """Joins the graph as a hidden node and runs the checks."""
    context = Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node(
            "_feature_frontend_doctor",
            context=context,
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        yield from _Examination(node, context, options).findings()
        node.destroy_node()
    finally:
        context.try_shutdown()


@dataclass(frozen=True)
class _Camera:
    """The topics of a camera.

    Attributes:
        side: A value of `SIDES`; empty for the only camera.
        topic: Of its images.
        info_topic: Of its calibration.
    """

    side: str
    topic: str
    info_topic: str

    def name(self, finding: Finding) -> Finding:
        """The finding, with the camera's side in its subject."""
        return replace(finding, text=f"{self.side}: {finding.text}") if self.side else finding


class _Examination:
    def __init__(self, node: Node, context: Context, options: GraphOptions) -> None:
        self._node = node
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(node)
        self._options = options
        self._timeout_s = options.timeout_s
        self._asked: dict[str, Any] = {}

    def findings(self) -> Iterator[Finding]:
        self._until(lambda: bool(self._frontends()))
        names = self._frontends()
        self._asked = {name: self._ask(name) for name in names}
        cameras = self._cameras()
        self._until(lambda: all(self._node.get_publishers_info_by_topic(camera.topic) for camera in cameras))
        yield from self._check_frontends(names, cameras)
        calibrations = []
        for camera in cameras:
            calibrations.append((yield from self._check_camera(camera)))
        if len(cameras) > 1:
            yield from self._check_stereo(cameras, calibrations)
        # Last, when all have been found.
        for name in names:
            if alike := namesakes(self._node, name):
                yield warn("front-end", alike, NAME_ADVICE)

    def _check_camera(self, camera: _Camera) -> Generator[Finding, None, CameraCalibration | None]:
        """Checks one camera; returns its calibration if it is valid."""
        publishers = self._node.get_publishers_info_by_topic(camera.topic)
        if not publishers:
            yield self._no_publisher(camera.topic)
            return None
        kind = publishers[0].topic_type
        if kind not in IMAGE_TYPES:
            text = f"{camera.topic} is of type {kind}; expected {' or '.join(IMAGE_TYPES)}"
            yield fail("image topic", text, "choose another topic")
            return None
        if len(publishers) > 1:
            text = f"{len(publishers)} publish {camera.topic}: {', '.join(sorted(map(_full_name, publishers)))}"
            yield warn("image topic", text, "their images mix: end all but one, or give each a topic of its own")
        yield from self._check_qos(camera.topic, publishers)
        (images,) = self._receive([(IMAGE_TYPES[kind], camera.topic)])
        if not images:
            text = f"{camera.topic} has {len(publishers)} publisher(s), but no image came in {self._timeout_s:g} s"
            advice = "is the camera, or the bag, paused? large images: see `middleware` above"
            yield fail("image", text, advice)
            return None
        yield from map(camera.name, self._check_images(images))
        calibration = yield from self._check_camera_info(camera, images[-1])
        yield from map(camera.name, self._check_clock(images[-1]))
        return calibration

    def _check_stereo(
        self, cameras: Sequence[_Camera], calibrations: Sequence[CameraCalibration | None]
    ) -> Iterator[Finding]:
        if not self._asked:
            yield check_message_filters()
        kinds = [self._node.get_publishers_info_by_topic(camera.topic) for camera in cameras]
        if not all(ends and ends[0].topic_type in IMAGE_TYPES for ends in kinds):
            return
        wanted = [(IMAGE_TYPES[ends[0].topic_type], camera.topic) for ends, camera in zip(kinds, cameras, strict=True)]
        left, right = ([stamp_to_ns(one.header.stamp) for one in images] for images in self._receive(wanted))
        if left and right:
            yield check_stamps(left, right, self._value("stereo_slop_ms"))
        yield check_rig(calibrations, rectified=self._value("rectified"))

    def _value(self, parameter: str) -> Any:
        """The value in the first front-end that reports it, else in the settings."""
        values = (asked[parameter] for asked in self._asked.values() if parameter in asked)
        return next(values, getattr(self._options.settings, parameter))

    def _until(self, done: Callable[[], bool]) -> bool:
        deadline_s = time.monotonic() + self._timeout_s
        while not (is_done := done()) and time.monotonic() < deadline_s:
            self._executor.spin_once(timeout_sec=_POLL_S)
        return is_done

    def _receive(
        self,
        wanted: Sequence[tuple[type, str]],
        is_enough: Callable[[Sequence[Any]], bool] = lambda messages: len(messages) >= _ENOUGH_IMAGES,
    ) -> list[list[Any]]:
        """Receives messages until there are enough or time is up; best effort, compatible with every publisher."""
        received: list[list[Any]] = [[] for _ in wanted]
        qos = qos_profile("sensor_data", 5)
        subscriptions = [
            self._node.create_subscription(kind, topic, messages.append, qos)
            for (kind, topic), messages in zip(wanted, received, strict=True)
        ]
        self._until(lambda: all(map(is_enough, received)))
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)
        return received

    def _cameras(self) -> list[_Camera]:
        """The cameras: from the options, else from a running front-end, else from the default topics."""
        images, infos = self._taken()
        given = list(self._options.image_topics)
        if given:
            infos = []  # a front-end may use other topics
        is_stereo = len(given) > 1 or (not given and self._value("camera_type") == "stereo")
        sides = SIDES if is_stereo else ("",)
        images = given or images
        if len(images) < len(sides):
            images = [f"{side}/image" if side else "image" for side in sides]
        cameras = []
        for index, (side, image) in enumerate(zip(sides, images, strict=False)):
            topic = self._node.resolve_topic_name(image)
            beside = f"{topic.removesuffix('/compressed').rpartition('/')[0]}/camera_info"
            told = self._options.camera_info_topics[index : index + 1]
            taken = infos[index] if len(infos) == len(sides) else beside
            cameras.append(_Camera(side, topic, self._node.resolve_topic_name(told[0] if told else taken)))
        return cameras

    def _taken(self) -> tuple[list[str], list[str]]:
        """Image and calibration topics that the first front-end has subscribed to, the left camera's first."""
        for name in self._asked:
            namespace, _, node_name = name.rpartition("/")
            ends = self._node.get_subscriber_names_and_types_by_node(node_name, namespace or "/")
            # Masks are images too.
            images = [topic for topic, types in ends if set(types) & set(IMAGE_TYPES) and not topic.endswith("mask")]
            if images:
                infos = [topic for topic, types in ends if CAMERA_INFO_TYPE in types]
                return sorted(images, key=_by_side), sorted(infos, key=_by_side)
        return [], []

    def _frontends(self) -> list[str]:
        """Full names of the nodes that publish a frame status, except nodes whose names are not yet known."""
        found = []
        for topic, types in self._node.get_topic_names_and_types():
            if STATUS_TYPE in types:
                ends = self._node.get_publishers_info_by_topic(topic)
                found += [_full_name(end) for end in ends if end.node_name != _UNKNOWN_NAME]
        return sorted(set(found))

    def _check_frontends(self, names: Sequence[str], cameras: Sequence[_Camera]) -> Iterator[Finding]:
        if not names:
            yield ok("front-end", "none is running in this ROS domain; the node's defaults are checked")
            return
        for name in names:
            for camera in cameras:
                ends = self._node.get_subscriptions_info_by_topic(camera.topic)
                if name in map(_full_name, ends):
                    yield ok("front-end", f"{name} is running and takes images from {camera.topic}")
                else:
                    advice = "remap its topics; without --image-topic, doctor looks at those it listens to"
                    yield warn("front-end", f"{name} is running, but not subscribed to {camera.topic}", advice)
            if not self._asked[name]:
                yield warn("clock", f"{name} does not answer for its parameters", "is it busy, or stopped?")
            elif self._asked[name].get("use_sim_time") and not self._has_clock():
                advice = "play with a clock (play --clock, ros2 bag play --clock), or set use_sim_time to false"
                yield fail("clock", f"{name} has use_sim_time, but nobody publishes /clock", advice)
        yield from self._read_diagnostics(names)

    def _ask(self, name: str) -> dict[str, Any]:
        """The relevant parameters of a node; empty if it does not answer."""
        # Not rclpy's AsyncParameterClient, which Humble lacks.
        client = self._node.create_client(GetParameters, f"{name}/get_parameters")
        if not self._until(client.service_is_ready):
            return {}
        future = client.call_async(GetParameters.Request(names=_ASKED))
        if not self._until(future.done) or (answer := future.result()) is None:
            return {}
        return dict(zip(_ASKED, map(parameter_value_to_python, answer.values), strict=False))

    def _read_diagnostics(self, names: Sequence[str]) -> Iterator[Finding]:
        wanted = {f"{name.lstrip('/')}: frontend" for name in names}
        heard: dict[str, Any] = {}

        def has_heard_all(arrays: Sequence[Any]) -> bool:
            # Other nodes also publish on this topic.
            heard.update((status.name, status) for array in arrays for status in array.status if status.name in wanted)
            return wanted <= set(heard)

        self._receive([(DiagnosticArray, "/diagnostics")], has_heard_all)
        for status in heard.values():
            verdict = _VERDICTS.get(status.level, Verdict.FAIL)
            advice = "" if verdict is Verdict.OK else "docs/diagnostics.md says what each level means"
            advice = advice_on(status.message) or advice
            yield Finding(verdict, "diagnostics", f"{status.name.split(':')[0]}: {status.message}", advice)

    def _no_publisher(self, wanted: str) -> Finding:
        others = sorted(
            topic
            for topic, types in self._node.get_topic_names_and_types()
            if set(types) & set(IMAGE_TYPES)
            and {_full_name(end) for end in self._node.get_publishers_info_by_topic(topic)} - set(self._frontends())
        )
        text = f"nobody publishes {wanted}"
        if others:
            advice = f"images are on {', '.join(others)}: remap `image` of the node, or doctor --image-topic TOPIC"
            return fail("image topic", text, advice)
        advice = "start the camera; same ROS_DOMAIN_ID, network and ROS_AUTOMATIC_DISCOVERY_RANGE in both shells?"
        return warn("image topic", f"{text}, nor any other image topic", advice)

    def _check_qos(self, topic: str, publishers: list[TopicEndpointInfo]) -> Iterator[Finding]:
        ends = [(_full_name(end), end.qos_profile) for end in self._node.get_subscriptions_info_by_topic(topic)]
        frontends = self._frontends()
        subscriptions: list[tuple[str, QoSProfile]] = [end for end in ends if end[0] in frontends]
        if not subscriptions:
            image_qos = self._options.settings.image_qos
            subscriptions = [(f"image_qos:={image_qos}", qos_profile(image_qos, 5))]
        for publisher in publishers:
            for name, subscription in subscriptions:
                # From outside, the history depth may be unknown; it does not affect compatibility.
                compatibility, reason = qos_check_compatible(publisher.qos_profile, subscription)
                offered = publisher.qos_profile.reliability.name.lower().replace("_", " ")
                if compatibility == QoSCompatibility.ERROR:
                    why = "; ".join(part.strip() for part in reason.replace("ERROR:", "").split(";") if part.strip())
                    text = f"{publisher.node_name} offers {offered}, which {name} does not match: {why}"
                    yield fail("QoS", text, "set the parameter image_qos to sensor_data, which fits every publisher")
                else:
                    yield ok("QoS", f"{topic}: {publisher.node_name} offers {offered}, which fits {name}")

    def _check_images(self, images: list[Image | CompressedImage]) -> Iterator[Finding]:
        image = images[-1]
        try:
            height, width = image_to_array(image).shape[:2]
        except ImageError as error:
            yield fail("image", str(error), "let the driver publish another encoding")
            return
        stamps = [stamp_to_ns(message.header.stamp) for message in images]
        elapsed_s = (stamps[-1] - stamps[0]) / _NS_PER_S
        rate = f", {(len(stamps) - 1) / elapsed_s:.1f} Hz by their stamps" if elapsed_s > 0 else ""
        yield ok("image", f"{width}x{height} px{rate}, {len(image.data) / 1e6:.2f} MB, frame {image.header.frame_id!r}")
        if len(image.data) > LARGE_IMAGE_BYTES and not self._options.has_room:
            text = f"{len(image.data) / 1e6:.2f} MB an image is more than the middleware's default shared memory takes"
            yield warn("image", text, "see `middleware` above")
        # A running node has observed for longer.
        lost = "" if self._asked else check_stamps_for_loss(images, is_best_effort=True)
        if lost:
            yield warn("image", lost, advice_on(lost))

    def _check_camera_info(
        self, camera: _Camera, image: Image | CompressedImage
    ) -> Generator[Finding, None, CameraCalibration | None]:
        messages: list[CameraInfo] = []
        topic = CameraInfoTopic(self._node, camera.info_topic, lambda info, _: messages.append(info), "sensor_data", 5)
        self._until(lambda: bool(messages))
        topic.close()
        if not messages:
            text = f"nothing on {camera.info_topic}: normalized_keypoints stay empty"
            advice = "calibrate the camera, or remap `camera_info`; not needed for keypoints, matches and tracks"
            yield warn("camera_info", text, advice)
            return None
        info = messages[-1]
        try:
            calibration = calibration_from_message(info)
            height, width = image_to_array(image).shape[:2]
            calibration.check_image(height, width, f"the image on {camera.topic}")
        except ImageError:
            return None
        except CalibrationError as error:
            yield fail("camera_info", f"{camera.info_topic}: {error}", "until then normalized_keypoints stay empty")
            return None
        if info.header.frame_id != image.header.frame_id:
            text = f"its frame is {info.header.frame_id!r}, the image's {image.header.frame_id!r}"
            yield camera.name(warn("camera_info", text, "do both come from one camera?"))
        yield camera.name(ok("camera_info", f"{calibration.distortion_model or 'no distortion'}, fits the images"))
        return calibration

    def _check_clock(self, image: Image | CompressedImage) -> Iterator[Finding]:
        stamp_ns = stamp_to_ns(image.header.stamp)
        behind_s = (time.time_ns() - stamp_ns) / _NS_PER_S
        if stamp_ns == 0:
            text = "images have the stamp 0: tracks get no velocities, and topics cannot be joined by stamp"
            yield fail("clock", text, "let the driver set the stamps")
        elif self._has_clock():
            yield ok("clock", "/clock is published: the time is a simulation's or a bag's")
        elif abs(behind_s) > _FAR_S:
            days = abs(behind_s) / _S_PER_DAY
            far = f"{days:.0f} days" if days > 2 else f"{abs(behind_s):.1f} s"
            text = f"stamps are {far} {'behind' if behind_s > 0 else 'ahead of'} this machine's clock"
            advice = "no matter to the front-end; tf and whoever compares stamps with now wants the clocks set alike"
            yield warn("clock", text, advice)
        else:
            yield ok("clock", f"stamps are {behind_s * 1e3:.0f} ms behind this machine's clock")

    def _has_clock(self) -> bool:
        return self._node.count_publishers("/clock") > 0


def _by_side(topic: str) -> tuple[bool, str]:
    """Sort key: the left camera's topics first, if their names tell."""
    return SIDES[1] in topic, topic


def _full_name(end: TopicEndpointInfo) -> str:
    """Full name of the node that a publisher or subscription belongs to."""
    return f"{end.node_namespace.rstrip('/')}/{end.node_name}"
