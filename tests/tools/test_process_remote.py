"""`process` from and to object storage: a server of S3's interface on the loopback, and file:// URLs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.tools.process import run, staging
from feature_frontend.tools.process.command import main
from feature_frontend.tools.process.locations import find_inputs, outputs_of
from feature_frontend.tools.process.remote import RemoteFolder
from tests.tools.offline import OPTIONS, SECOND, files, image, moving, write_bag

Photographs = list[npt.NDArray[np.uint8]]
KEY, SECRET = "AKIDEXAMPLEKEY", "wJalrXUtnFEMISECRETKEY"
IMAGES = 6


@pytest.fixture(scope="module")
def bags(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bags in a folder."""
    folder = tmp_path_factory.mktemp("input") / "bags"
    folder.mkdir()
    for number in range(2):
        stamps = [(10 * number + index + 1) * SECOND for index in range(IMAGES)]
        write_bag(
            folder / f"drive_{number}",
            [("/cam/image", stamp, image(stamp, moving(photographs, stamp // SECOND), "rgb8")) for stamp in stamps],
        )
    return folder


@pytest.fixture(scope="module")
def local(bags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run on a disk makes of them."""
    output = tmp_path_factory.mktemp("output") / "features"
    assert main([str(bags), "-o", str(output), *OPTIONS]) == 0
    return output


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("s3fs", reason="needs s3fs (pip install s3fs)")
    moto = pytest.importorskip("moto.server", reason="needs moto (pip install 'moto[s3,server]')")
    running = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def fleet(server: str, bags: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The bucket "fleet" with both bags, and credentials for it; a cache of the test's own."""
    import boto3
    import fsspec

    for name, value in (
        ("AWS_ENDPOINT_URL", server),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", str(tmp_path / "none")),
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none")),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("XDG_CACHE_HOME", str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    bucket = boto3.resource("s3").Bucket("fleet")
    bucket.create()
    for file in bags.rglob("*.*"):
        if file.is_file():
            bucket.upload_file(str(file), f"bags/{file.relative_to(bags)}")
    yield bucket
    bucket.objects.delete()
    bucket.delete()
    fsspec.filesystem("s3").clear_instance_cache()


def objects(bucket: Any, prefix: str = "") -> dict[str, bytes]:
    return {one.key: one.get()["Body"].read() for one in bucket.objects.filter(Prefix=prefix)}


def test_bags_in_a_bucket_give_the_bytes_of_those_on_a_disk(
    fleet: Any, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["s3://fleet/bags", "-o", "s3://fleet/out", *OPTIONS]
    assert main(arguments) == 0
    found = objects(fleet, "out/")
    for name in ("drive_0", "drive_1"):
        record = json.loads(found[f"out/{name}/process.json"])
        assert record["sha256"] == json.loads((local / name / "process.json").read_text())["sha256"]
        assert found[f"out/{name}/frontend.db3"] == (local / name / "frontend.db3").read_bytes()
        assert record["input"]["bytes"] > IMAGES * 96 * 128 * 3
    assert len(found) == 2 * 3 + 1
    capsys.readouterr()
    # Again, only what is missing: a changed bag, an output that is gone.
    fleet.Object("bags/drive_1/metadata.yaml").put(Body=objects(fleet)["bags/drive_1/metadata.yaml"] + b"\n")
    assert main(arguments) == 1
    assert "it differs in input.bytes, input.listing_sha256); choose another" in capsys.readouterr().err
    assert main([*arguments, "--update"]) == 0
    states = [entry["state"] for entry in json.loads(objects(fleet)["out/report.json"])["inputs"]]
    assert states == ["was finished", "done"]
    assert "made again, for it differed in input.bytes, input.listing_sha256" in capsys.readouterr().out
    # Nothing of it is left on this machine but the copies of the inputs.
    assert not list((tmp_path / "cache").glob("feature_frontend/unfinished/*/*"))


def test_an_interrupted_upload_is_no_bag_and_is_done_again_from_the_pieces_in_the_bucket(
    fleet: Any, local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["s3://fleet/bags/drive_0", "-o", "s3://fleet/out", *OPTIONS, "--piece-seconds", "2"]
    upload = RemoteFolder.upload

    with monkeypatch.context() as patched:

        def break_off(folder: RemoteFolder, source: Path, name: str) -> None:
            if name == "metadata.yaml":
                patched.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
                folder._files.clear_instance_cache()
                folder = RemoteFolder(folder.url)
            upload(folder, source, name)

        patched.setattr(RemoteFolder, "upload", break_off)
        assert main(arguments) == 1
        assert "s3://fleet/out cannot be written: " in capsys.readouterr().err
    RemoteFolder("s3://fleet")._files.clear_instance_cache()
    assert set(objects(fleet, "out/")) == {"out/frontend.db3"}
    assert len(objects(fleet, "out.unfinished/")) == 3
    assert main(arguments) == 0
    assert set(objects(fleet, "out/")) == {f"out/{name}" for name in ("frontend.db3", "metadata.yaml", "process.json")}
    assert objects(fleet, "out/")["out/frontend.db3"] == (local / "drive_0" / "frontend.db3").read_bytes()
    assert not objects(fleet, "out.unfinished/")


def test_a_bag_whose_machine_is_lost_begins_at_its_last_piece(
    fleet: Any, bags: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (*OPTIONS, "--tracker", "persistent")
    assert main([str(bags / "drive_0"), "-o", str(tmp_path / "whole"), *options]) == 0
    arguments = ["s3://fleet/bags/drive_0", "-o", "s3://fleet/out", *options, "--piece-seconds", "2"]
    process, processed = run._Run.process, []

    def interrupt(self: Any, frame: Any) -> None:
        process(self, frame)
        processed.append(frame.found.index)
        if len(processed) == IMAGES - 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(run._Run, "process", interrupt)
    assert main(arguments) == 130
    kept = objects(fleet, "out.unfinished/")
    state = max(name for name in kept if "/state_" in name)
    names = ["piece_00000", "piece_00001", "state_00000", "state_00001"]
    assert sorted(name.partition("/")[2][:11] for name in kept) == names
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    # What is damaged in the bucket is refused by its name there, and made again once it is deleted.
    database = tmp_path / "state.db"
    database.write_bytes(kept[state])
    sqlite3.connect(database, isolation_level=None).execute("UPDATE arrays SET data = x'00' WHERE id = 1")
    fleet.Object(state).put(Body=database.read_bytes())
    assert main(arguments) == 1
    assert f"error: s3://fleet/{state} is damaged: the state in it is not" in capsys.readouterr().err
    fleet.Object(state).delete()
    assert main(arguments) == 0
    assert processed == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert objects(fleet, "out/")["out/frontend.db3"] == (tmp_path / "whole" / "frontend.db3").read_bytes()
    assert not objects(fleet, "out.unfinished/")
    assert not list((tmp_path / "another machine").glob("feature_frontend/unfinished/*/*"))


def test_a_broken_connection_is_told_without_credentials(
    fleet: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def error_of(*arguments: str) -> str:
        RemoteFolder("s3://fleet")._files.clear_instance_cache()
        assert main([*arguments, *OPTIONS]) == 1
        printed = capsys.readouterr()
        assert KEY not in printed.err + printed.out
        assert SECRET not in printed.err + printed.out
        return printed.err

    bag, out = "s3://fleet/bags/drive_0", "s3://fleet/out"
    assert "there is no bucket nowhere: correct the name" in error_of("s3://nowhere/bag", "-o", out)
    assert "there is no bucket nowhere: correct the name" in error_of(bag, "-o", "s3://nowhere/out")
    assert "there is no file or folder s3://fleet/bags/drive_9" in error_of("s3://fleet/bags/drive_9", "-o", out)
    assert "nothing matches s3://fleet/bags/ride_*" in error_of("s3://fleet/bags/ride_*", "-o", out)
    assert "carries credentials; expected them where" in error_of(f"s3://{KEY}:{SECRET}@fleet/bags", "-o", out)
    fleet.Object("out/letter.txt").put(Body=b"keep")
    assert "s3://fleet/out has files that are no output of this tool" in error_of(bag, "-o", out)
    assert "files: expected" not in error_of(bag, "-o", out, "--overwrite")
    assert objects(fleet, "out") == {"out/letter.txt": b"keep"}

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(f"The request signature for {SECRET} does not match")

    with monkeypatch.context() as patched:
        patched.setattr(type(RemoteFolder("s3://fleet")._files), "ls", denied)
        assert "check that the credentials are right and may list, read and write" in error_of(bag, "-o", out)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "give credentials, such as in ~/.aws/credentials" in error_of(bag, "-o", out)


def test_a_back_end_that_is_not_installed_is_named() -> None:
    with pytest.raises(
        SettingsError, match=r"URLs need a package that is not installed: pip install adlfs|credentials"
    ):
        RemoteFolder("abfs://container/bag")
    with pytest.raises(SettingsError, match="magic:// URLs are not known to fsspec"):
        RemoteFolder("magic://bucket/bag")


def test_file_urls_folders_and_patterns_are_paths(bags: Path, local: Path, tmp_path: Path) -> None:
    assert main([f"file://{bags}", "-o", f"file://{tmp_path}/out", *OPTIONS]) == 0
    for name in ("drive_0", "drive_1"):
        assert files(tmp_path / "out" / name)["frontend.db3"] == files(local / name)["frontend.db3"]
    names = [str(bags / f"drive_{number}") for number in range(2)]
    assert find_inputs([f"{bags}/drive_*"]).locations == names
    assert find_inputs([f"{bags}/drive_[1]"]).locations == names[1:]
    assert find_inputs([names[0]]).locations == names[:1]
    assert not find_inputs([names[0]]).are_many
    with pytest.raises(FeatureFrontendError, match="nothing matches"):
        find_inputs([f"{bags}/ride_*"])


def test_bags_of_one_name_in_several_folders_get_names_of_their_own(tmp_path: Path) -> None:
    for folder in ("monday", "tuesday"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "drive.mcap").touch()
    inputs = find_inputs([f"{tmp_path}/*/drive.mcap"])
    assert outputs_of(inputs, "out", "") == ["out/monday_drive", "out/tuesday_drive"]
    assert outputs_of(inputs, "s3://a/out/", "bag=") == ["s3://a/out/bag=monday_drive", "s3://a/out/bag=tuesday_drive"]


def test_the_cache_keeps_within_its_bound(tmp_path: Path) -> None:
    cache, made = staging._Cache(tmp_path, 100), []

    def use(key: str, size: int) -> None:
        def fill(entry: Path) -> None:
            made.append(key)
            (entry / "file").write_bytes(bytes(size))

        with cache.entry(key, size, key, fill) as entry:
            assert (entry / "file").stat().st_size == size

    with pytest.raises(FeatureFrontendError, match=r"big has 0\.00 GiB, and copies .* --cache-gib"):
        use("big", 101)
    for key in "abab":
        use(key, 40)
    assert made == ["a", "b"]
    use("c", 40)  # in place of a, which was used longest ago
    use("b", 40)
    use("a", 40)
    assert made == ["a", "b", "c", "a"]
    # What a killed process has left: room that it took, half a copy.
    (tmp_path / "x.size").write_text("90")
    (tmp_path / "x.partial").mkdir()
    use("d", 60)
    assert not (tmp_path / "x.partial").exists()
    assert sum(file.stat().st_size for file in tmp_path.glob("*/file")) <= 100
