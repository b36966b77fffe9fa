from __future__ import annotations

import pytest
import torch

from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.device import (
    autocast,
    compiled,
    describe_device,
    explain_out_of_memory,
    resolve_compile,
    resolve_device,
    resolve_memory_format,
    resolve_precision,
)
from sdclr.errors import ConfigError


def test_what_cannot_compute_here_is_refused() -> None:
    assert resolve_device("cpu").type == "cpu"
    for name, words in (("mps", "not supported"), ("gpu", "must be auto, cpu, cuda"), ("cuda:99", "CUDA devices")):
        with pytest.raises(ConfigError, match=words):
            resolve_device(name)


def test_auto_precision_is_fp32_on_a_cpu_and_bf16_is_there_for_the_asking() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == "fp32"
    layer = torch.nn.Linear(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(cpu, precision):  # type: ignore[arg-type]
            assert layer(torch.zeros(1, 2)).dtype == dtype
    assert describe_device(cpu).startswith("CPU: ")


def test_running_out_of_memory_says_what_to_lower() -> None:
    with (
        pytest.raises(ConfigError, match=r"out of memory.*Lower batch_size"),
        explain_out_of_memory("Lower batch_size."),
    ):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match=r"shapes cannot"), explain_out_of_memory("x"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_channels_last_is_kept_from_networks_on_which_it_corrupts_memory() -> None:
    cpu = torch.device("cpu")
    narrow, wide = (build_backbone(BackboneConfig(name="resnet10", width=width)) for width in (8, 16))
    assert resolve_memory_format("auto", wide, cpu) == torch.channels_last
    assert resolve_memory_format("auto", narrow, cpu) == torch.contiguous_format
    assert resolve_memory_format("auto", narrow, torch.device("cuda")) == torch.channels_last
    assert resolve_memory_format("contiguous", wide, cpu) == torch.contiguous_format
    with pytest.raises(ConfigError, match="memory_format=auto"):
        resolve_memory_format("channels_last", narrow, cpu)


def test_more_shapes_than_torch_compiles_run_as_they_are_after_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises an error of a class of its own then, after seconds of compiling; here it is raised at once."""
    exceptions = pytest.importorskip("torch._dynamo.exc")
    too_many = getattr(exceptions, "FailOnRecompileLimitHit", exceptions.TorchDynamoException)

    def refuse(x: torch.Tensor) -> torch.Tensor:
        raise too_many("Hard failure due to fullgraph=True")

    monkeypatch.setattr(torch, "compile", lambda function, **_: refuse)
    call = compiled(lambda x: x * 2 + 1, "doubling")
    with pytest.warns(UserWarning, match="doubling runs uncompiled, because torch.compile failed: Hard failure"):
        assert torch.equal(call(torch.ones(3)), torch.full((3,), 3.0))
    assert torch.equal(call(torch.ones(4)), torch.full((4,), 3.0))


def test_compiling_is_automatic_on_cuda_only() -> None:
    assert [resolve_compile("auto", torch.device(name)) for name in ("cpu", "cuda")] == [False, True]
    assert resolve_compile(True, torch.device("cpu"))


def test_what_does_not_compile_runs_as_it_is_after_one_warning() -> None:
    def synchronises(x: torch.Tensor) -> float:
        return x.sum().item() if x.sum() > 0 else 0.0  # a branch on data: no single graph

    run = compiled(synchronises, "this function")
    with pytest.warns(UserWarning, match=r"^this function runs uncompiled, because torch\.compile failed: \S") as seen:
        results = [run(torch.ones(3)), run(torch.ones(4))]
    assert results == [3, 4]
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
