"""The node `frontend`: subscribes to images; publishes features, matches, tracks and a status for each frame."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial

from feature_frontend_msgs.msg import FrameStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.image.image_file import read_mask_file
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.pipeline.masks import TopicMask
from feature_frontend.pipeline.process_frame import FrameProcessor
from feature_frontend.pipeline.stereo_pairs import StereoPairs
from feature_frontend.ros.frame_store import FrameStore
from feature_frontend.ros.frame_worker import WARM_UP_SIZE, FrameWorker
from feature_frontend.ros.guarded_node import GuardedNode
from feature_frontend.ros.input.camera_info_findings import CameraInfoFindings
from feature_frontend.ros.input.camera_info_topic import CameraInfoTopic
from feature_frontend.ros.input.frame import Frame
from feature_frontend.ros.input.image_subscription import cut_frame_id, subscribe_to_images, why_silent
from feature_frontend.ros.input.mask_loader import LoadedMask, MaskLoader
from feature_frontend.ros.input.mask_topic import MaskTopic
from feature_frontend.ros.input.stereo_subscription import StereoInput, import_message_filters
from feature_frontend.ros.model_loader import (
    EXTRACTOR_PARAMETERS,
    LoadedModel,
    ModelLoader,
    check_model,
    is_same_model,
    names_left_weights,
    with_model_of,
)
from feature_frontend.ros.output.diagnostics import Diagnostics, Facts
from feature_frontend.ros.output.frame_status import FrameStatistics, fate
from feature_frontend.ros.output.name_watch import NameWatch
from feature_frontend.ros.output.publishers import Publishers, ResultTopics
from feature_frontend.ros.output.run_identity import new_run_id
from feature_frontend.ros.parameters import changed_settings, check_file, declare_parameters, read_settings, settable
from feature_frontend.ros.qos import is_best_effort, qos_profile
from feature_frontend.ros.reset import offer_reset
from feature_frontend.ros.services import MatchService
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.runtime.device import return_device_memory
from feature_frontend.runtime.health import Finding, Level
from feature_frontend.runtime.heap import give_back_freed_memory
from feature_frontend.runtime.input_loss import InputLoss
from feature_frontend.runtime.mask_sync import PairedMask
from feature_frontend.settings import Settings
from feature_frontend.system.text import quoted

__all__ = ["FrontendNode"]

_NEWEST_DEPTH = 5
_LOG_S = 10.0
_SHORTAGE_S = 5.0
_STOP_TIMEOUT_S = 1.0
_REPLACED = "a newer image arrived before this one was processed"
_DEACTIVATED = "the node was deactivated before this image was processed"
_Load = Callable[[Settings], Frontend]


class FrontendNode(GuardedNode):
    """Receives images in the executor's thread and processes them in a worker thread, one frame at a time.

    A lifecycle node: configuring loads and warms up the model, activating subscribes to the images. The executor's
    thread handles all transitions, parameters and services.

    Args:
        load: Creates the front-end from the parameters; replace it to use your own network.
        arguments: ROS command line; the node warns of parameters in it that have no effect.
        long_work: Context for long work that creates no rclpy objects: loading and warming up the model.

    Raises:
        SettingsError: A parameter has a wrong type or is out of range.
        WeightsError: The node starts by itself (`autostart`), and the weights are unavailable.
    """

    _is_destroyed = False  # class attribute: a partly constructed node may be destroyed too

    def __init__(
        self,
        load: _Load = Frontend.from_pretrained,
        arguments: Sequence[str] = (),
        long_work: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__("frontend")
        self._settings = declare_parameters(self, arguments)
        self._load = load
        self._long_work = long_work
        self._model = self._settings  # in force; its model parameters name the model in use
        self._extractor: Extractor | None = None
        self._notice = ""
        self._mask_path = ""  # of the mask in use
        self._failure: Exception | None = None
        self._is_starting = self._settings.autostart
        self._calibrations = CalibrationWatch()
        self._diagnostics = Diagnostics(self, self._facts)
        self._input_loss = InputLoss()
        self._statistics = FrameStatistics()
        self._store = FrameStore(self._settings)
        self._worker: FrameWorker | None = None
        self._mask_topic: MaskTopic[Frame] | None = None
        self._stereo: StereoPairs | None = None
        self._stereo_input: StereoInput | None = None
        if self._settings.camera_type == "stereo":
            import_message_filters()
        self._image_subscription: Subscription | None = None
        self._camera_info_topic: CameraInfoTopic | None = None
        self._name_watch = NameWatch(self)
        # The executor calls it after the parameters are set: Humble has no post-set callback.
        self._parameters_set = self.create_guard_condition(self._apply_parameters)
        self._loader = ModelLoader(load, self._parameters_set.trigger)
        self._mask_loader = MaskLoader(self._parameters_set.trigger, self._max_pixels)
        self._match_service = MatchService(self, self._store, lambda: self._settings)
        offer_reset(self, self._on_reset)
        self.add_on_set_parameters_callback(self._on_parameters)
        if self._settings.autostart:
            self._start()

    def stop(self) -> bool:
        """Stops the worker after the current frame; False if that frame is still running after a second."""
        self._loader.cancel()
        self._mask_loader.cancel()
        self._match_service.close()
        if self._mask_topic is not None:
            self._mask_topic.close()
        if self._worker is None:
            return True
        self._worker.stop(_STOP_TIMEOUT_S)
        return not self._worker.is_running

    def destroy_node(self) -> None:
        """Frees the node's ROS resources."""
        self._is_destroyed = True
        super().destroy_node()

    def _can_publish(self) -> bool:
        # A frame that outlasts the timeout of `stop` is still being processed while the node is destroyed.
        return self.context.ok() and not self._is_destroyed

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Sets parameters as the services do; accepts integers for floats, and unchanged read-only values."""
        changes = settable(self, parameter_list)
        if parameter_list and not changes:
            return SetParametersResult(successful=True)
        return super().set_parameters_atomically(changes)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads and warms up the model; without its weights the node stays unconfigured."""
        return self._transition("configure", self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts receiving, processing and publishing."""
        return self._transition("activate", self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops after the current frame; drops waiting frames."""
        return self._transition("deactivate", self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees the model and the GPU memory."""
        return self._transition("clean up", self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops and frees the model; the process keeps running, so that the node's state can still be queried."""
        return self._transition("shut down", self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Cleans up after a failed transition; the node is then unconfigured."""
        return self._transition("recover", self._release)

    def _transition(self, name: str, work: Callable[[], None]) -> TransitionCallbackReturn:
        """Runs a transition. rclpy swallows exceptions of such callbacks, so log or keep them here."""
        try:
            work()
        except Exception as error:
            self._failure = error
            is_expected = isinstance(error, FeatureFrontendError)
            if not self._is_starting:
                self.get_logger().error(f"cannot {name}: {error if is_expected else traceback.format_exc()}")
            return TransitionCallbackReturn.FAILURE if is_expected else TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _start(self) -> None:
        success = TransitionCallbackReturn.SUCCESS
        if self.trigger_configure() != success or self.trigger_activate() != success:
            assert self._failure is not None
            self.destroy_node()
            raise self._failure
        self._is_starting = False

    def _configure(self) -> None:
        self._settings = read_settings(self)
        mask_path = self._settings.mask_path
        with self._long_work():
            mask = read_mask_file(mask_path, self._settings.max_image_pixels) if mask_path else None
            frontend = self._load(self._settings)
            frontend.warm_up(*WARM_UP_SIZE)
        # A new front-end starts its track ids at 1: new publishers and a new run_id.
        self._result_publishers = Publishers(self, self._settings)
        self._topics = ResultTopics(self._result_publishers.publish, self._statistics, new_run_id(), self._on_status)
        self._stereo = StereoPairs(self._calibrations) if self._settings.camera_type == "stereo" else None
        logger = self.get_logger()
        self._worker = FrameWorker(
            FrameProcessor(
                frontend, self._calibrations, partial(logger.warning, throttle_duration_sec=_SHORTAGE_S), self._stereo
            ),
            self._topics,
            self._result_publishers,
            self._store,
            logger,
            self._can_publish,
            self.guard.note,
        )
        self._mask_path = mask_path
        self._worker.use_mask_file(mask_path, mask)
        choices = frontend.choices(self._settings)
        if choices:
            logger.info(choices)
            self._worker.remark(choices)
        # The parameter stays "auto": another model or multi_scale may want another tracker.
        self._use_model_of(frontend, replace(frontend.settings, tracker=self._settings.tracker))
        self._log_model_in_use()

    def _activate(self) -> None:
        assert self._worker is not None
        settings = self._settings
        every_frame = settings.queue_policy == "every_frame"
        images = qos_profile(settings.image_qos, 0 if every_frame else _NEWEST_DEPTH)
        self._input_loss = InputLoss()
        side = "" if self._stereo is None else "left/"
        info_topic = self.resolve_topic_name(f"{side}camera_info")
        self._camera_info = CameraInfoFindings(self._calibrations, info_topic, side.rstrip("/"))
        self._camera_info_topic = CameraInfoTopic(
            self, f"{side}camera_info", self._on_camera_info, settings.image_qos, _NEWEST_DEPTH
        )
        if settings.mask_topic:
            self._mask_topic = MaskTopic(
                self, settings.queue_policy, images, self._put_with_mask, self._drop_replaced, self._max_pixels
            )
        if self._stereo is None:
            self._image_subscription = subscribe_to_images(
                self, settings.image_transport, self._on_image, images, answer=self._refuse
            )
            self._image_topic = self._image_subscription.topic_name
        else:
            stereo = self._stereo
            self._stereo_input = StereoInput(
                self,
                settings,
                images,
                stereo.right,
                lambda: stereo.outcome,
                self._arrived,
                self._hold,
                self._drop,
                self._refuse,
            )
            self._image_topic = self._stereo_input.topic_name
        self._worker.start(None if every_frame else 1)
        self.get_logger().info(
            f"ready: {self._model_in_use()}, {self._followed_by()}; waiting for images on {self._image_topic}"
        )

    def _deactivate(self) -> None:
        assert self._worker is not None
        if self._image_subscription is not None:
            self.destroy_subscription(self._image_subscription)
        if self._camera_info_topic is not None:
            self._camera_info_topic.close()
        self._image_subscription = self._camera_info_topic = None
        waiting = [] if self._stereo_input is None else self._stereo_input.close()
        waiting += [] if self._mask_topic is None else self._mask_topic.close()
        self._mask_topic = self._stereo_input = None
        for frame in [*self._worker.stop(), *waiting]:
            self._topics.dropped(frame.message.header, frame.received_s, _DEACTIVATED)
        self._worker.change(partial(Frontend.reset, reason="the node was inactive"))

    def _release(self) -> None:
        self._loader.cancel()
        self._mask_loader.cancel()
        if self._worker is None:
            return
        self._deactivate()
        self._worker.change(Frontend.close)
        self._worker, self._extractor = None, None
        self._result_publishers.destroy()
        self._store.clear()
        # The model may contain reference cycles.
        gc.collect()
        return_device_memory()
        give_back_freed_memory()

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            settings = changed_settings(read_settings(self), changes)
            if not is_same_model(settings, self._model):
                check_model(settings)
            if settings.mask_path not in {"", self._mask_path}:
                check_file("mask_path", settings.mask_path, "a PNG of the images' size, or ''")
        except SettingsError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._parameters_set.trigger()
        return SetParametersResult(successful=True)

    def _apply_parameters(self) -> None:
        """Applies the current parameters, and a model or mask that has finished loading."""
        self._settings = read_settings(self)
        self._store.configure(self._settings)
        if self._worker is None:
            return
        if names_left_weights(self._settings, self._model):
            # `ros2 param set` sets one parameter at a time, so it could not leave a network with custom weights.
            self.set_parameters([Parameter("weights_path", value="")])
            self._settings = read_settings(self)
        wanted = self._loader.wanted
        if is_same_model(self._settings, self._model):
            self._loader.cancel()
        elif wanted is None or not is_same_model(self._settings, wanted):
            keeps_extractor = is_same_model(self._settings, self._model, EXTRACTOR_PARAMETERS)
            kept = self._extractor if keeps_extractor else None
            self._loader.request((self._settings, self._worker.image_size, kept))
        else:
            loaded = self._loader.take()
            if loaded is not None:
                self._end_loading(loaded)
        self._apply_mask()
        self._model = in_force = replace(with_model_of(self._settings, self._model), mask_path=self._mask_path)
        self._worker.change(lambda frontend: frontend.configure(in_force))

    def _apply_mask(self) -> None:
        assert self._worker is not None
        path = self._settings.mask_path
        if path == self._mask_path:
            self._mask_loader.cancel()
        elif not path:
            self._mask_loader.cancel()
            self._use_mask(LoadedMask("", None))
        elif path != self._mask_loader.wish:
            self._mask_loader.request(path)
        else:
            loaded = self._mask_loader.take()
            if loaded is not None and loaded.problem:
                reason = f"the mask stays {quoted(self._mask_path)}: {loaded.problem}"
                self.get_logger().error(reason)
                self._worker.remark(reason)
                self.set_parameters([Parameter("mask_path", value=self._mask_path)])
                self._settings = read_settings(self)
            elif loaded is not None:
                self._use_mask(loaded)

    def _use_mask(self, loaded: LoadedMask) -> None:
        assert self._worker is not None
        self._mask_path = loaded.path
        self._worker.use_mask_file(loaded.path, loaded.mask)

    def _end_loading(self, loaded: LoadedModel) -> None:
        assert self._worker is not None
        if loaded.problem:
            assert self._extractor is not None
            reason = f"the model stays {self._extractor.identity}: {loaded.problem}"
            self.get_logger().error(reason)
            self._worker.remark(reason)
            self._log_model_in_use()
            return
        frontend = loaded.frontend
        if frontend is None:
            self._model = loaded.settings
            self.get_logger().info(f"from the next frame on: matcher {self._model.matcher}")
            return
        self._use_model_of(frontend, replace(loaded.settings, extractor=frontend.settings.extractor))
        self._log_model_in_use()
        model = self._model_in_use()
        reason = f"the model is now {model}; descriptors of different models do not compare"
        self._worker.change(partial(Frontend.swap_model, other=frontend, reason=reason))
        self.get_logger().info(f"from the next frame on: {model}")

    def _use_model_of(self, frontend: Frontend, settings: Settings) -> None:
        self._model, self._extractor, self._notice = settings, frontend.extractor, frontend.notice

    def _model_in_use(self) -> str:
        assert self._extractor is not None
        return f"{self._extractor.identity} on {self._extractor.device}, {self._model.precision}"

    def _followed_by(self) -> str:
        assert self._worker is not None
        tracker = f"tracker {self._worker.tracker}"
        return tracker if self._worker.tracker == "persistent" else f"{tracker}, matcher {self._model.matcher}"

    def _log_model_in_use(self) -> None:
        """Sets the parameters that name the model to the model in use, and resets those that do not fit it."""
        in_use = asdict(with_model_of(self._settings, self._model))
        changes = [
            Parameter(name, value=value) for name, value in in_use.items() if value != getattr(self._settings, name)
        ]
        if changes:
            self.set_parameters_atomically(changes)
            self._settings = read_settings(self)

    def _on_status(self, status: FrameStatus) -> None:
        self._diagnostics.note(status)
        logger = self.get_logger()
        if logger.is_enabled_for(LoggingSeverity.DEBUG):
            logger.debug(fate(status))

    def _on_reset(self) -> None:
        if self._worker is not None:
            self._worker.change(partial(Frontend.reset, reason="a reset was requested"))

    def _on_camera_info(self, message: CameraInfo, is_second: bool) -> None:
        self._camera_info.note_info(time.monotonic())
        self._calibrations.take(message, again=is_second)

    def _facts(self) -> Facts | None:
        if self._worker is None or not self._worker.is_running or self._extractor is None:
            return None
        mask_values = [("Masks", str(self._worker.mask_counts))] if self._settings.mask_topic else []
        stereo_findings, stereo_values = self._stereo_input.facts() if self._stereo_input is not None else ([], [])
        now_s = time.monotonic()
        lost, missing = self._input_loss.facts(now_s, is_best_effort=is_best_effort(self._settings.image_qos))
        warnings = (
            Finding("extractor", Level.WARN, self._notice, "the wanted extractor is in use"),
            *self._camera_info.findings(now_s),
            Finding("lost images", Level.WARN, lost, "no more images look lost on their way"),
            *stereo_findings,
            self._name_watch.finding(now_s),
            Finding("callbacks", Level.WARN, self.guard.warning, is_logged=False),
        )
        return Facts(
            model=self._extractor.identity,
            device=self._extractor.device,
            execution=self._extractor.execution,
            precision=self._model.precision,
            calibration=self._calibrations.state,
            why_silent=partial(why_silent, self, self._image_topic, self._settings.image_qos),
            warnings=warnings,
            further=[
                ("Tracker", self._worker.tracker),
                ("Images missing (estimated)", missing),
                *mask_values,
                *stereo_values,
                *self.guard.values,
            ],
        )

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._hold(self._arrived(message))

    def _arrived(self, message: Image | CompressedImage) -> Frame:
        received_s = time.monotonic()
        if cut_frame_id(message.header):
            self.get_logger().warning("an endless frame_id has been cut", throttle_duration_sec=_LOG_S)
        self._camera_info.note_image(received_s)
        self._diagnostics.arrived(received_s)
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._input_loss.arrived(stamp_ns, received_s, len(message.data))
        self._topics.note_arrival(received_s)
        return Frame(message, received_s, runs=(self._calibrations.arrived(stamp_ns), 0))

    def _hold(self, frame: Frame) -> None:
        """Queues a frame; with a mask topic, only after its mask has arrived or timed out."""
        if self._mask_topic is None:
            self._put(frame)
        else:
            stamp_ns = stamp_to_ns(frame.message.header.stamp)
            self._mask_topic.hold(frame, stamp_ns, frame.received_s, self._settings.mask_timeout_ms)

    def _put_with_mask(self, frame: Frame, mask: PairedMask[TopicMask]) -> None:
        self._put(replace(frame, mask=mask))

    def _put(self, frame: Frame) -> None:
        assert self._worker is not None
        dropped = self._worker.put(frame)
        if dropped is not None:
            self._drop_replaced(dropped)

    def _drop_replaced(self, frame: Frame) -> None:
        self._drop(frame, _REPLACED)

    def _drop(self, frame: Frame, reason: str) -> None:
        self._topics.dropped(frame.message.header, frame.received_s, reason)

    def _refuse(self, reason: str, message: Image | CompressedImage) -> None:
        self._topics.refused(message.header, time.monotonic(), reason)

    def _max_pixels(self) -> int:
        return self._settings.max_image_pixels
