"""Image sources that can be played: folders of images, video files, bags, webcams. No ROS needed."""

from feature_frontend.media.frame import Frame
from feature_frontend.media.source import SOURCE_KINDS, Source, SourceOptions, open_source
from feature_frontend.media.timeline import PlaybackSettings, ScheduledFrame, schedule

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
