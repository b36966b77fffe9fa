"""Files that try to run code, to eat memory or to lie, and a witness that notices when one succeeds.

Pickles are assembled from opcodes; ``CANARY`` is what each of them would leave behind if it were executed.
"""

from __future__ import annotations

import collections
import io
import json
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sdclr.storage import tensor_files

CANARY = "sdclr-canary"
CODE = f"open({CANARY!r}, 'w').close()"
SHELL = f"touch {CANARY}"


class Call:
    """Pickles as the call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def imported(module: str, name: str, arguments: bytes) -> bytes:
    """GLOBAL module name, arguments, REDUCE."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + arguments + b"tR."


def zipped(
    pickled: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
) -> bytes:
    """A file of torch.save around any pickle."""
    buffer = io.BytesIO()
    content = {
        "data.pkl": pickled,
        "version": b"3\n",
        "byteorder": b"little",
        ".format_version": b"1",
    }
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, value in (content | (records or {})).items():
            archive.writestr(f"archive/{name}", value)
    return buffer.getvalue()


def saved(content: Any, **keywords: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **keywords)
    return buffer.getvalue()


def legacy(pickled: bytes) -> bytes:
    """torch's format before zip: magic number, version, system, then the pickle."""
    head = (
        0x1950A86A20F9469CFC6C,
        1001,
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
    )
    return (
        b"".join(pickle.dumps(part, protocol=2) for part in head)
        + pickled
        + pickle.dumps([], protocol=2)
    )


def tarred(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(pickled)
            archive.addfile(member, io.BytesIO(pickled))
    return buffer.getvalue()


def torchscript() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still found on the internet
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def pickles() -> dict[str, bytes]:
    """Pickled code of many kinds, in the formats that torch.load knows."""
    import os
    import subprocess

    evil = pickle.dumps(Call(os.system, SHELL), protocol=2)
    files = {
        "os.system": zipped(evil),
        "posix system": zipped(imported("posix", "system", text(SHELL))),
        "subprocess": zipped(pickle.dumps(Call(subprocess.Popen, ["touch", CANARY]), protocol=2)),
        "eval": zipped(imported("builtins", "eval", text(CODE))),
        "exec": zipped(imported("builtins", "exec", text(CODE))),
        "eval of Python 2": zipped(imported("__builtin__", "eval", text(CODE))),
        "import": zipped(imported("importlib", "import_module", text("this"))),
        "run a string": zipped(
            imported("numpy.testing._private.utils", "runstring", text(CODE) + b"}")
        ),
        "runpy": zipped(imported("runpy", "_run_code", text(CODE) + b"}")),
        "stack global": zipped(pickle.dumps(Call(exec, CODE), protocol=4)),
        "protocol 5": zipped(pickle.dumps(Call(exec, CODE), protocol=5)),
        "inst": zipped(b"(S'" + SHELL.encode() + b"'\niposix\nsystem\n."),
        "obj": zipped(b"(cposix\nsystem\nS'" + SHELL.encode() + b"'\no."),
        "newobj": zipped(
            b"\x80\x02csubprocess\nPopen\n(]" + text("touch") + b"a" + text(CANARY) + b"at\x81."
        ),
        "newobj_ex": zipped(b"\x80\x04csubprocess\nPopen\n)}\x92."),
        "build": zipped(
            b"\x80\x02ctorch\nTensor\n)\x81}"
            + text("__setstate__")
            + b"cos\nsystem\nsb"
            + text(SHELL)
            + b"b."
        ),
        "extension": zipped(b"\x80\x02\x82\x01)R."),
        "persistent": zipped(
            b"\x80\x02("
            + text("storage")
            + b"cos\nsystem\n"
            + text("0")
            + text("cpu")
            + b"K\x01tQ."
        ),
        "a torch.load inside": zipped(imported("torch", "load", text("evil.pt"))),
        "torch.hub": zipped(imported("torch.hub", "load", text("a/b") + text("c"))),
        "numpy objects": zipped(
            imported("numpy.core.multiarray", "_reconstruct", b"cnumpy\nndarray\nK\x00\x85C\x01b")
        ),
        "functools.partial": zipped(
            imported("functools", "partial", b"cos\nsystem\n" + text(SHELL))
        ),
        "attribute": zipped(imported("operator", "attrgetter", text("__class__.__base__"))),
        "in the state": saved({"state_dict": {"conv1.weight": Call(exec, CODE)}}),
        "in the epoch": saved(
            {"epoch": Call(exec, CODE), "state_dict": {"conv1.weight": torch.zeros(1)}}
        ),
        "bare pickle": evil,
        "legacy": legacy(evil),
        "legacy by torch": saved(
            {"state_dict": Call(exec, CODE)}, _use_new_zipfile_serialization=False
        ),
        "tar": tarred(evil),
        "a file in a file": zipped(
            pickle.dumps({"state_dict": zipped(evil)}, protocol=2), {"inner.pt": zipped(evil)}
        ),
        "torchscript": torchscript(),
        "torchscript names": zipped(
            evil, {"constants.pkl": evil, "code/__torch__.py": CODE.encode()}
        ),
    }
    return {f"{name}.pt": content for name, content in files.items()}


def greedy() -> dict[str, bytes]:
    """Small files that claim, or unpack to, far more than they hold."""
    one = torch.zeros(1)
    huge = {"conv1.weight": one.expand(10**6, 3, 3, 3)}
    index, size = torch.tensor([[0], [0]]), (10**6, 10**6)
    sparse = torch.sparse_coo_tensor(index, torch.tensor([1.0]), size, check_invariants=True)
    deep: Any = {}
    for _ in range(300):
        deep = {"state_dict": deep}
    storage = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"\x8a\x06"
    terabyte = (
        b"("
        + storage
        + (2**38).to_bytes(6, "little")
        + b"tQK\x00(K\x01t(K\x01t\x89ccollections\nOrderedDict\n)R"
    )
    files = {
        "stride 0": saved({"state_dict": huge}),
        "stride 0, a trillion": saved({"state_dict": {"conv1.weight": one.expand(10**12)}}),
        "sparse": saved({"state_dict": {"conv1.weight": sparse}}),
        "meta": saved({"state_dict": {"conv1.weight": torch.zeros(64, 3, 3, 3, device="meta")}}),
        "zip bomb": zipped(
            pickle.dumps({"x": 1}, protocol=2), {"data/0": bytes(300_000_000)}, compression=zipfile.ZIP_DEFLATED
        ),
        "deflated pickle": zipped(
            b"\x80\x02" + b"]0" * 50_000_000 + b"N.", compression=zipfile.ZIP_DEFLATED
        ),
        "a long bytearray": zipped(imported("builtins", "bytearray", b"\x8a\x06" + (10**13).to_bytes(6, "little"))),
        "storage of a terabyte": zipped(imported("torch._utils", "_rebuild_tensor_v2", terabyte), {"data/0": b"abcd"}),
        "nested": saved(deep),
        "opened brackets": zipped(b"\x80\x02" + b"(" * 200_000),
        "some opened brackets": zipped(b"\x80\x02" + b"(" * 5_000),
        "some recursion": zipped(b"\x80\x02" + b"]" * 2_500 + b"a" * 2_499 + b"."),
        "recursion": zipped(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "missing memo": zipped(b"\x80\x02h\x07."),
        "no pickle": zipped(b""),
        "ordered": saved(collections.OrderedDict(state_dict=collections.OrderedDict(a=5))),
    }  # fmt: skip
    return {f"{name}.pt": content for name, content in files.items()}


def summed(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file with any header, its checksum made right where it has one."""
    content = struct.pack("<Q", len(header)) + header + data
    where = content.find(tensor_files._SUM_KEY, 8, 8 + len(header)) + len(tensor_files._SUM_KEY)
    if where < len(tensor_files._SUM_KEY):
        return content
    return content[:where] + tensor_files._sum(content, where) + content[where + 64 :]


def header(entries: dict[str, Any], facts: Any = None) -> bytes:
    metadata = {"facts": json.dumps({"step": 3} if facts is None else facts), "sha256": "0" * 64}
    return json.dumps({"__metadata__": metadata} | entries, separators=(",", ":")).encode()


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def liars() -> dict[str, bytes]:
    """safetensors files whose headers lie; their checksums are right."""
    backbone = {
        "format": "sdclr-backbone-1",
        "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    wide = backbone | {"architecture": {"name": "resnet50", "width": 10**6}}
    loads = {"name": "timm:resnet10t", "options": {"checkpoint_path": "evil.pt"}}
    files = {
        "overlap": summed(header({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}), bytes(12)),
        "gap": summed(header({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}), bytes(12)),
        "beyond": summed(header({"a": entry([10], 0, 40)}), bytes(8)),
        "huge shape": summed(header({"a": entry([2**40, 2**40], 0, 8)}), bytes(8)),
        "product overflows": summed(header({"a": entry([2**32, 2**32, 2**32], 0, 0)})),
        "negative": summed(header({"a": entry([-1], 0, 4)}), bytes(4)),
        "backwards": summed(header({"a": entry([1], 4, 0)}), bytes(4)),
        "strange type": summed(header({"a": entry([1], 0, 4, "Q99")}), bytes(4)),
        "text for a shape": summed(
            header({"a": {"dtype": "F32", "shape": "x", "data_offsets": "y"}}), bytes(4)
        ),
        "header of 16 exabytes": struct.pack("<Q", 2**63) + b"{}",
        "header of 17 megabytes": struct.pack("<Q", 17 << 20) + bytes(17 << 20),
        "deep header": summed(
            b'{"sha256":"' + b"0" * 64 + b'","a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        ),
        "deep facts": summed(
            json.dumps(
                {"__metadata__": {"facts": "[" * 100_000, "sha256": "0" * 64}},
                separators=(",", ":"),
            ).encode()
        ),
        "facts that are a list": summed(header({}, [1])),
        "no facts": summed(b'{"__metadata__":{"sha256":"' + b"0" * 64 + b'"}}'),
        "a wide network": summed(header({}, wide)),
        "a wider network": summed(
            header({}, backbone | {"architecture": {"name": "resnet10", "width": 63_270_844}})
        ),
        "a network that loads": summed(header({}, backbone | {"architecture": loads})),
        "an unknown network": summed(
            header({}, backbone | {"architecture": {"name": "timm:hf-hub:evil/net"}})
        ),
        "no network": summed(header({}, backbone)),
        "norms of text": summed(header({}, wide | {"normalisation": {"mean": "abc", "std": None}})),
        "a pickle": pickle.dumps(Call(exec, CODE)),
        "empty": b"",
    }
    return {f"{name}.safetensors": content for name, content in files.items()}


class Witness:
    """An audit hook of this process: what was executed, started, connected to or opened although it should not."""

    FORBIDDEN = (
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "subprocess.Popen",
        "socket.connect",
        "os.remove",
        "os.rename",
    )

    def __init__(self) -> None:
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self.FORBIDDEN:
            self.seen.append(event)
        elif event in ("open", "compile") and CANARY in str(arguments[0]):
            self.seen.append(f"{event} {str(arguments[0])[:60]}")
        elif event == "exec" and getattr(arguments[0], "co_filename", "").startswith("<string"):
            self.seen.append(event)
        elif event == "import" and arguments[0] == "this":
            self.seen.append("import this")


def peak_bytes(action: Callable[[], object]) -> int:
    """How far memory rose while ``action`` ran."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmHWM")
    action()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)
    )
    return 1024 * int(line.split()[1])
