"""Creates the corpus's real files with the tests' own writers: python -m tests.fuzz.seeds.

Existing files are kept. A new parser or format takes one line here.
"""

from __future__ import annotations

import io
import json
import random
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save

from feature_frontend.camera.distortion import MODEL_NAMES
from feature_frontend.image.encodings import ENCODINGS
from feature_frontend.runtime.snapshot import Snapshot, pack
from feature_frontend.settings import PARAMETERS
from feature_frontend.tools.process.progress_store import ProgressStore
from tests.core.bag_damage import CAMERA_INFO, IMAGE, STORE, STORE1, image, recordings
from tests.core.test_calibration_formats import CALIBRATIONS
from tests.fuzz.bags import SEPARATOR
from tests.fuzz.corpus import CORPUS
from tests.fuzz.downloads import FILE_NAME, MEMBER, MEMBER_BYTES
from tests.fuzz.messages import camera_info_bytes, compressed_bytes, image_bytes
from tests.fuzz.snapshots import PROGRESS, frontend
from tests.fuzz.snapshots import SEPARATOR as SEPARATOR_OF_ARRAYS
from tests.image_files import encoded, tiff, with_orientation

Named = Iterator[tuple[str, str | bytes]]
_RAMP = (np.arange(16 * 24 * 3) * 7 % 256).reshape(16, 24, 3).astype(np.uint8)
_PHOTOGRAPH = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
_K, _R = [500.0, 0, 32, 0, 500, 24, 0, 0, 1], [1.0, 0, 0, 0, 1, 0, 0, 0, 1]
_P = [500.0, 0, 32, 0, 0, 500, 24, 0, 0, 0, 1, 0]


def _images() -> Named:
    for name in ("mono8", "mono16", "bgr8", "rgba16", "bayer_rggb8", "yuv422_yuy2", "nv12", "32FC1", "64FC1", "8SC1"):
        layout = ENCODINGS[name]
        step = 8 * layout.channels * np.dtype(layout.sample).itemsize
        yield name, image_bytes(6, 8, step, 0, name, bytes(range(96)) * 6)
    yield "padded-big-endian", image_bytes(5, 7, 20, 1, "16UC1", bytes(range(100)))


def _picture_files() -> Named:
    grey = _RAMP[..., 0]
    progressive = cv2.imencode(".jpg", _RAMP, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))[1].tobytes()
    yield from (("jpeg", encoded(_RAMP, ".jpg")), ("jpeg-progressive", progressive))
    yield "jpeg-exif", with_orientation(encoded(grey, ".jpg"), ".jpg", 6)
    for suffix in (".png", ".bmp", ".webp"):
        yield suffix[1:], encoded(_RAMP, suffix)
    yield "png-deep-exif", with_orientation(encoded(grey.astype(np.uint16) * 200, ".png"), ".png", 3)
    yield "png-alpha", encoded(np.dstack([_RAMP, grey]), ".png")


def _other_files() -> Named:
    grey = _RAMP[..., 0]
    yield from (
        ("pgm", encoded(grey, ".pgm")),
        ("ppm", encoded(_RAMP, ".ppm")),
        ("pbm-text", b"P1\n# a\n4 2\n10101010\n"),
    )
    yield from (("tiff", tiff(_RAMP)), ("tiff-float", tiff(grey.astype(np.float32), tags=((274, 3, 6),))))
    yield "tiff-pages", tiff(grey.astype(np.uint16), directories=3)
    packed = cv2.imencode(".tiff", _RAMP, (cv2.IMWRITE_TIFF_COMPRESSION, 5))[1].tobytes()
    yield from (("tiff-lzw", packed), ("webp-exif", with_orientation(encoded(_RAMP, ".webp"), ".webp", 8)))


def _compressed_images() -> Named:
    for name, data in _picture_files():
        yield name, compressed_bytes("bgr8; png compressed " if "png" in name else "rgb8; jpeg compressed bgr8", data)
    yield "mosaic", compressed_bytes("bayer_rggb8; png compressed", encoded(_RAMP[..., 0], ".png"))


def _camera_infos() -> Named:
    sizes = (48, 64, 0, 0, 0, 0, 0, 0)
    for count, name in ((5, "plumb_bob"), (8, "rational_polynomial"), (14, "tilted_thin_prism"), (4, "equidistant")):
        yield name, camera_info_bytes(sizes, name, [0.01] * count, _K, _R, _P)
    yield "region", camera_info_bytes((480, 640, 2, 2, 10, 20, 100, 200), "", [], _K, _R, _P)
    yield "only-p", camera_info_bytes(sizes, MODEL_NAMES[0], [], [0.0] * 9, _R, _P)


def _serialized() -> Named:
    info = STORE.types[CAMERA_INFO]
    roi = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    picture = image(STORE, 10**18, bytes(range(60)))
    matrices = [np.array(values, np.float64) for values in (_K, _R, _P)]
    camera = info(picture.header, 48, 64, "plumb_bob", np.full(5, 0.01), *matrices, 0, 0, roi)
    packed = STORE.types["sensor_msgs/msg/CompressedImage"](
        picture.header, "rgb8; png compressed", np.frombuffer(encoded(_RAMP, ".png"), np.uint8)
    )
    for number, (message, kind) in enumerate(
        ((picture, IMAGE), (packed, "sensor_msgs/msg/CompressedImage"), (camera, CAMERA_INFO))
    ):
        yield f"cdr-{number}", bytes([number]) + bytes(STORE.serialize_cdr(message, kind))
    first = image(STORE1, 10**18, bytes(range(60)), 7)
    yield "ros1-0", bytes([3]) + bytes(STORE1.serialize_ros1(first, IMAGE))


def _calibrations() -> Named:
    for name, text in CALIBRATIONS.items():
        yield name.replace(" ", "-").replace(",", ""), text
    yield "kitti-raw", _KITTI_RAW


_KITTI_RAW = """\
calib_time: 09-Jan-2012 13:57:47
S_00: 1.392000e+03 5.120000e+02
K_00: 9.842439e+02 0 6.900000e+02 0 9.808141e+02 2.331966e+02 0 0 1
D_00: -3.728755e-01 2.037299e-01 2.219027e-03 1.383707e-03 -7.233722e-02
S_rect_00: 1.242000e+03 3.750000e+02
P_rect_00: 7.215377e+02 0 6.095593e+02 0 0 7.215377e+02 1.728540e+02 0 0 0 1 0
"""


def _dataset_lists() -> Named:
    stamps = (1403636579763555584, 1403636579813555456)
    yield "images", "#timestamp [ns],filename\n" + "".join(f"{stamp},{stamp}.png\r\n" for stamp in stamps)
    yield "imu", "#timestamp [ns],w,a\n" + "".join(f"{stamp},-0.1,0.2,0.3,9.8,0.1,-1e-3\n" for stamp in stamps)
    yield "tum", "# color images\n1311868164.363181 rgb/1311868164.363181.png\n1311868164.399026 rgb/b.png\n"


def _dataset_sensors() -> Named:
    pose = "T_BS:\n  cols: 4\n  rows: 4\n  data: [0.0, -1.0, 0.0, 0.1, 1.0, 0.0, 0.0, 0.2, 0, 0, 1, 0.3, 0, 0, 0, 1]\n"
    yield "camera", CALIBRATIONS["euroc"]
    yield (
        "imu",
        f"#Default imu sensor yaml file\nsensor_type: imu\n{pose}gyroscope_noise_density: 1.6968e-04\n"
        "gyroscope_random_walk: 1.9393e-05\naccelerometer_noise_density: 2.0e-3\naccelerometer_random_walk: 3.0e-3\n",
    )


def _parameters() -> Named:
    lines = "".join(f"    {record.name}: {json.dumps(record.default)}\n" for record in PARAMETERS.values())
    yield "all", f"/**:\n  ros__parameters:\n{lines}"
    yield (
        "sections",
        (
            "/*:\n  ros__parameters: {max_keypoints: 300, tracker: {max_age: 3}}\nfrontend:\n  ros__parameters:\n"
            "    matcher: mnn\n    use_sim_time: true\n    qos_overrides./image.reliability: reliable\n    topk: 0x10\n"
        ),
    )


def _times() -> Named:
    yield "seconds", "0.0\n1.037875e-01\n2.075326e-01\n"
    yield "kitti", "".join(f"2011-09-26 13:02:25.9{n}4389445\n" for n in range(3))
    yield "tum", "# timestamp filename\n1.5 rgb/1403636579.763555584.png\n2.5 rgb/000001.png\n3.5 rgb/000002.png\n"
    names = ("1403636579763555584,1403636579.763555584.png", "1403636579813555456,000001.png")
    yield (
        "euroc",
        "#timestamp [ns],filename\n" + "".join(f"{name}\r\n" for name in (*names, "1403636579863555584,000002.png")),
    )


def _pip() -> Named:
    yield (
        "pip.conf",
        (
            "[global]\nindex-url = https://user:word@pip.example\nextra-index-url =\n    https://b.example/simple\n"
            "    file:///opt/simple\nfind-links = /opt ~/wheels\nproxy = http://proxy.example:3128\ncert = ~/ca.pem\n"
            "[install]\nno-index = false\n"
        ),
    )


def _bags(prefix: str) -> Named:
    with tempfile.TemporaryDirectory() as folder:
        for recorded in recordings(Path(folder), 4, 150, random.Random(0)):
            for name, content in recorded.files.items():
                if prefix == "metadata" and name == "metadata.yaml":
                    yield recorded.name, content
                elif name.removesuffix(".zstd").endswith(f".{prefix}") and not name.startswith("bag_"):
                    yield recorded.name, _smaller(content)


def _smaller(content: bytes) -> bytes:
    """A database with small pages; anything else as it is."""
    if not content.startswith(b"SQLite"):
        return content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bag")
        path.write_bytes(content)
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("PRAGMA page_size = 512")
        database.execute("VACUUM")
        database.close()
        return path.read_bytes()


def _logs() -> Named:
    """A database whose recorder was killed, and the log that it left."""
    (_, whole), *_ = _bags("db3")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bag")
        path.write_bytes(whole if isinstance(whole, bytes) else b"")
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("INSERT INTO messages SELECT id + 100, topic_id, timestamp, data FROM messages")
        yield "killed", path.read_bytes() + SEPARATOR + Path(folder, "bag-wal").read_bytes()
        database.close()


def _answers() -> Named:
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    yield "length", f"{head}Content-Length: 5\r\n\r\nhello"
    yield "chunked", f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    yield (
        "redirect",
        "HTTP/1.1 302 Found\r\nLocation: https://user:word@other.example/x?y#z\r\nContent-Length: 0\r\n\r\n",
    )
    yield "missing", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    packed = bytes.fromhex("1f8b0800000000000003cb48cdc9c907008610a63605000000")
    yield "gzip", f"{head}Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed


def _pages() -> Named:
    files = [{"filename": FILE_NAME, "url": f"../../files/{FILE_NAME}", "hashes": {"sha256": "0" * 64}}]
    yield "json", json.dumps({"meta": {"api-version": "1.1"}, "name": "small-pack", "files": files})
    yield (
        "html",
        f"<html><body><a href='http://[x'>x</a><a href=\"../{FILE_NAME}#sha256={'0' * 64}\">x</a></body></html>",
    )


def _wheels() -> Named:
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("pack/other.bin", bytes(range(200)))
            archive.writestr(MEMBER, (bytes(range(250)) * 2)[:MEMBER_BYTES])
        yield name, buffer.getvalue()


def _checkpoints() -> Named:
    tensors = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2, dtype=torch.bfloat16)}
    for name, content in (("tensors", tensors), ("lightning", {"state_dict": tensors, "epoch": 3})):
        for new in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=new)
            yield f"{name}{'' if new else '-old'}", buffer.getvalue()


def _safetensors() -> Named:
    yield "two", save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(3, dtype=torch.int8)}, {"made": "here"})


def _states() -> Named:
    for number in range(2):
        frontend().process(np.roll(_PHOTOGRAPH, number, axis=1), number)
    snapshot = pack(frontend().get_state())
    yield "chain", SEPARATOR_OF_ARRAYS.join([snapshot.document.encode(), *map(bytes, snapshot.arrays)])


def _progress() -> Named:
    for name, is_last in (("unfinished", False), ("finished", True)):
        with tempfile.TemporaryDirectory() as folder:
            with ProgressStore(Path(folder)) as store:
                store.begin({"source": "bag", "count": 3})
                store.add("/frontend/features", 5, bytes(range(100)))
                store.commit(Snapshot('{"schema":"x"}', [b"array"]), is_last=is_last)
            yield name, _smaller(Path(folder, PROGRESS).read_bytes())


_MAKERS = {
    "image": _images,
    "compressed-image": _compressed_images,
    "camera-info": _camera_infos,
    "bag-messages": _serialized,
    "calibration": _calibrations,
    "parameters": _parameters,
    "times": _times,
    "dataset-lists": _dataset_lists,
    "dataset-sensor": _dataset_sensors,
    "image-file": lambda: (*_picture_files(), *_other_files()),
    "download-settings": _pip,
    "bag-db3": lambda: _bags("db3"),
    "bag-log": _logs,
    "bag-mcap": lambda: _bags("mcap"),
    "bag-ros1": lambda: _bags("bag"),
    "bag-metadata": lambda: _bags("metadata"),
    "download-answer": _answers,
    "download-index": _pages,
    "download-wheel": _wheels,
    "snapshot-state": _states,
    "snapshot-progress": _progress,
    "weights-pth": _checkpoints,
    "weights-safetensors": _safetensors,
}


def main() -> None:
    """Writes what is not there yet."""
    for parser, make in _MAKERS.items():
        (CORPUS / parser).mkdir(parents=True, exist_ok=True)
        for name, content in make():
            path = CORPUS / parser / name
            if not path.exists():
                path.write_bytes(content.encode() if isinstance(content, str) else content)


if __name__ == "__main__":
    main()
