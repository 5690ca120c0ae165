"""Image sources: folders of images, video files, bags, webcams. No ROS needed."""

from feature_frontend.sources.base import Frame, Source, SourceOptions
from feature_frontend.sources.playback import PlaybackSettings, ScheduledFrame, schedule
from feature_frontend.sources.registry import SOURCE_KINDS, open_source

__all__ = [
    "SOURCE_KINDS",
    "Frame",
    "PlaybackSettings",
    "ScheduledFrame",
    "Source",
    "SourceOptions",
    "open_source",
    "schedule",
]
