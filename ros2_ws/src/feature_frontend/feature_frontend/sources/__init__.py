"""Image sources: folders of images, datasets, video files, bags, webcams. No ROS needed."""

from feature_frontend.sources.base import Frame, Source, SourceOptions
from feature_frontend.sources.imu import ImuMeasurements, ImuNoise
from feature_frontend.sources.playback import PlaybackSettings, ScheduledFrame, schedule
from feature_frontend.sources.registry import SOURCE_KINDS, imu_of, open_source

__all__ = [
    "SOURCE_KINDS",
    "Frame",
    "ImuMeasurements",
    "ImuNoise",
    "PlaybackSettings",
    "ScheduledFrame",
    "Source",
    "SourceOptions",
    "imu_of",
    "open_source",
    "schedule",
]
