"""Malicious and damaged weight files: refused with one line, or loaded as hashed."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.torch_version import TorchVersion

from feature_frontend.errors import SettingsError, WeightsError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.models.weights import find_own_weights, own_weights
from feature_frontend.models.weights_file import FoundWeights, fill_network
from feature_frontend.settings import Settings
from feature_frontend.system.files import new_file
from feature_frontend.tools import weights as tool
from tests.conftest import NEEDS_TORCH_FOR_PTH

State = dict[str, torch.Tensor]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)


def _fill(path: Path) -> Network:
    network = Network()
    fill_network(network, own_weights("net", path), "net")
    return network


def _check_text(error: pytest.ExceptionInfo[WeightsError]) -> None:
    text = str(error.value)
    assert len(text.splitlines()) <= 3
    assert len(text) < 1000
    assert text.replace("\n", "").isprintable()


def _fifo(folder: Path) -> str:
    os.mkfifo(folder / "fifo.pth")
    return str(folder / "fifo.pth")


def _socket(folder: Path) -> str:
    # The path of a socket has a limit.
    here = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.pth")
    finally:
        os.chdir(here)
    return str(folder / "socket.pth")


def _sparse(folder: Path) -> str:
    with (folder / "sparse.pth").open("wb") as file:
        file.truncate(100 << 30)
    return str(folder / "sparse.pth")


_NO_FILES: dict[str, tuple[Callable[[Path], str], str]] = {
    "a pipe": (_fifo, "regular file"),
    "a device without end": (lambda _: "/dev/zero", "regular file"),
    "a folder": (str, "Is a directory"),
    "a socket": (_socket, "No such device or address"),
    "100 GB of nothing": (_sparse, "107,374,182,400 bytes.* 1,073,741,824"),
    "a file of the kernel's": (lambda _: "/proc/self/status", ""),
    "nobody's": (lambda _: "~no-such-user/x.pth", "~no-such-user/x.pth"),
    "nothing": (lambda folder: str(folder / "none.pth"), "none.pth"),
    "a name without end": (lambda _: "x" * 5000, "File name too long"),
}


@pytest.mark.parametrize("what", _NO_FILES)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    make, expected = _NO_FILES[what]
    settings = Settings(device="cpu", extractor="silk-vggnp-mu", weights_path=make(tmp_path))
    with pytest.raises(WeightsError, match=expected) as caught:
        Extractor.from_pretrained(settings)
    _check_text(caught)


@pytest.mark.parametrize("what", ["a pipe", "a device without end", "a folder", "a socket"])
def test_what_is_no_file_is_refused_by_a_running_node_before_it_is_opened(tmp_path: Path, what: str) -> None:
    pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
    from feature_frontend.ros.model_loader import check_model

    with pytest.raises(SettingsError, match="weights_path"):
        check_model(Settings(device="cpu", weights_path=_NO_FILES[what][0](tmp_path)))


def test_what_is_no_file_is_refused_also_where_it_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FEATURE_FRONTEND_WEIGHTS", raising=False)
    os.mkfifo(tmp_path / "net.pth")
    os.mkfifo(tmp_path / "aliked-n16.pth")
    with pytest.raises(WeightsError, match="not a regular file"):
        find_own_weights("net", str(tmp_path))
    assert tool.main(["verify", "aliked-n16", "--weights-dir", str(tmp_path)]) == 1
    for folder in ("~no-such-user", "x" * 5000, "/dev/null"):
        assert tool.main(["list", "--weights-dir", folder]) == 0
    printed = capsys.readouterr()
    assert "aliked-n16: " in printed.out
    assert "File name too long" in printed.out
    assert "Traceback" not in printed.out + printed.err


def _set(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], None]:
    def apply(state: State) -> None:
        state[name] = change(state[name])

    return apply


def _with(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.double().flatten().index_fill(0, torch.tensor([1]), value).reshape(tensor.shape)


def _add(*names: str) -> Callable[[State], None]:
    return lambda state: state.update({name: torch.zeros(1) for name in names})


_BAD_TENSORS: dict[str, tuple[Callable[[State], None], str]] = {
    "NaN": (_set("conv.weight", _with(float("nan"))), r"not finite conv\.weight$"),
    "infinity": (_set("norm.running_var", _with(-float("inf"))), r"not finite norm\.running_var$"),
    "beyond float32": (_set("conv.weight", _with(1e300)), r"not finite conv\.weight$"),
    "whole numbers": (_set("conv.bias", torch.Tensor.int), r"conv\.bias is torch\.int32, expected torch\.float32"),
    "complex": (_set("conv.bias", lambda t: t.to(torch.complex64)), r"is torch\.complex64"),
    "bool": (_set("conv.bias", torch.Tensor.bool), r"is torch\.bool"),
    "a float that counts": (_set("norm.num_batches_tracked", torch.Tensor.float), "expected torch.int64"),
    "another shape": (_set("conv.bias", lambda t: t[:2]), r"conv\.bias is \(2,\), expected \(4,\)"),
    "any size": (_set("conv.bias", lambda t: t[:1].expand(10**9, 10**9)), r"is \(1000000000, 1000000000\)"),
    "sparse": (_set("conv.bias", torch.Tensor.to_sparse), r"is torch\.sparse_coo on cpu, expected a plain tensor"),
    "without data": (_set("conv.bias", lambda t: t.to("meta")), "on meta, expected a plain tensor"),
    "nothing": (dict.clear, r"missing conv\.weight, conv\.bias, norm\.weight and 4 more"),
    "one more": (_add("other"), "unexpected other$"),
    "many more": (_add(*(f"{'name' * 40}{index}" for index in range(3000))), "and 2997 more"),
    "names to look at": (_add("\x1b[31m" * 50_000), "unexpected"),
}


_NOT_IN_SAFETENSORS = {"any size", "sparse", "without data"}


@pytest.mark.parametrize(
    ("what", "suffix"),
    [pytest.param(what, ".pth", marks=NEEDS_TORCH_FOR_PTH) for what in _BAD_TENSORS]
    + [(what, ".safetensors") for what in _BAD_TENSORS if what not in _NOT_IN_SAFETENSORS],
)
def test_weights_of_another_kind_do_not_load(tmp_path: Path, what: str, suffix: str) -> None:
    change, expected = _BAD_TENSORS[what]
    state = dict(Network().state_dict())
    change(state)
    if suffix == ".pth":
        torch.save(state, tmp_path / "net.pth")
    else:
        try:
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "net.safetensors")
        except KeyError as error:
            pytest.skip(f"this safetensors writes no {error}")
    with pytest.raises(WeightsError, match=rf"net\{suffix} .*{expected}") as caught:
        _fill(tmp_path / f"net{suffix}")
    _check_text(caught)


@NEEDS_TORCH_FOR_PTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_point_of_other_sizes_becomes_the_networks(tmp_path: Path, dtype: torch.dtype) -> None:
    state = Network().state_dict()
    torch.save({name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}, tmp_path / "net.pth")
    network = _fill(tmp_path / "net.pth")
    assert network.conv.weight.dtype == torch.float32
    assert torch.equal(network.conv.weight, state["conv.weight"].to(dtype).float())


@NEEDS_TORCH_FOR_PTH
def test_a_file_that_unpacks_to_more_than_it_is_does_not(tmp_path: Path) -> None:
    plain = io.BytesIO()
    torch.save({"conv.weight": torch.zeros(1 << 24)}, plain)
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(tmp_path / "net.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in archive.namelist():
            bomb.writestr(name, archive.read(name))
    assert (tmp_path / "net.pth").stat().st_size < 100_000
    with pytest.raises(WeightsError, match="more than the file") as caught:
        _fill(tmp_path / "net.pth")
    _check_text(caught)


def test_an_old_torch_reads_only_what_cannot_execute_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cu126"))
    state = Network().state_dict()
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"torch 2\.9\.1.* torch 2\.10") as error:
        _fill(tmp_path / "net.pth")
    _check_text(error)
    save_file(state, tmp_path / "net.safetensors")
    _fill(tmp_path / "net.safetensors")
    found = own_weights("net", tmp_path / "net.pth")
    assert FoundWeights(found.name, found.path, found.sha256, is_published=True).load().keys() == state.keys()
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0"))
    _fill(tmp_path / "net.pth")


@NEEDS_TORCH_FOR_PTH
def test_readers_that_say_much_are_cut(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"conv.weight": Payload()}, tmp_path / "net.pth")
    (tmp_path / "half.safetensors").write_bytes(b"\xff" * 1000)
    for name in ("net.pth", "half.safetensors"):
        with pytest.raises(WeightsError, match=name) as caught:
            _fill(tmp_path / name)
        _check_text(caught)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", [pytest.param(".pth", marks=NEEDS_TORCH_FOR_PTH), ".safetensors"])
def test_what_is_loaded_is_what_was_hashed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    for name in ("good", "other"):
        state = Network().state_dict()
        if suffix == ".pth":
            torch.save(state, tmp_path / name)
        else:
            save_file(state, tmp_path / name)
    (tmp_path / "good").replace(path)
    found = own_weights("net", path)
    (tmp_path / "other").replace(path)
    with pytest.raises(WeightsError, match="changed"):
        fill_network(Network(), found, "net")
    path.unlink()
    with pytest.raises(WeightsError, match="No such file"):
        fill_network(Network(), found, "net")


def test_a_new_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    for content in (b"first", b"second"):
        before = sorted(tmp_path.iterdir())
        with new_file(path) as file:
            file.write(content)
            # What a process leaves that is killed here.
            assert sorted(tmp_path.iterdir()) == before
        assert path.read_bytes() == content
    with pytest.raises(ZeroDivisionError), new_file(path) as file:
        file.write(b"third" * (1 // 0))
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("net.pth", b"second")]


def test_a_new_file_has_a_name_from_the_beginning_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    with new_file(tmp_path / "net.pth") as file:
        file.write(b"first")
        assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "net.pth"):
        raise ZeroDivisionError
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("net.pth", b"first")]
    with pytest.raises(OSError, match="No such file"), new_file(tmp_path / "none" / "net.pth"):
        pass
