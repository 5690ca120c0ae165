"""Named QoS profiles that a parameter can choose, and topic names."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from feature_frontend.errors import SettingsError

__all__ = ["COMPRESSED_SUFFIX", "QOS_PROFILES", "compressed_topic", "is_best_effort", "qos_profile"]

QOS_PROFILES = {
    "sensor_data": (ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE),
    "reliable": (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE),
    "transient_local": (ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL),
}


def qos_profile(name: str, depth: int) -> QoSProfile:
    """The profile called `name` with a history of the last `depth` messages; `depth` 0 keeps all of them.

    Raises:
        SettingsError: No profile has that name, or the depth is negative.
    """
    if name not in QOS_PROFILES:
        raise SettingsError(f"no QoS profile is called {name!r}; expected one of {', '.join(QOS_PROFILES)}")
    if depth < 0:
        raise SettingsError(f"a QoS history depth of {depth} is not possible; expected 0 (keep all) or more")
    reliability, durability = QOS_PROFILES[name]
    history = HistoryPolicy.KEEP_LAST if depth else HistoryPolicy.KEEP_ALL
    return QoSProfile(reliability=reliability, durability=durability, history=history, depth=depth or 1)


def is_best_effort(name: str) -> bool:
    """Whether a subscription with the profile `name` may lose messages even from a reliable publisher."""
    return QOS_PROFILES[name][0] is ReliabilityPolicy.BEST_EFFORT


COMPRESSED_SUFFIX = "/compressed"


def compressed_topic(base_topic: str) -> str:
    """The topic of the compressed images that belong to `base_topic`; returns a compressed topic unchanged."""
    return base_topic if base_topic.endswith(COMPRESSED_SUFFIX) else base_topic + COMPRESSED_SUFFIX
