from __future__ import annotations

import pytest
import torch

from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.compute import device as device_module
from sdclr.compute.device import (
    autocast,
    bf16_speedup_of_cpu,
    describe_device,
    explain_out_of_memory,
    resolve_device,
    resolve_memory_format,
    resolve_precision,
)
from sdclr.errors import ConfigError


def test_what_cannot_compute_here_is_refused() -> None:
    assert resolve_device("cpu").type == "cpu"
    for name, words in (
        ("mps", "sees no Apple GPU"),
        ("xpu", "is not supported"),
        ("gpu", "must be auto, cpu, cuda"),
        ("cuda:99", "CUDA devices"),
    ):
        with pytest.raises(ConfigError, match=words):
            resolve_device(name)


def test_the_speedup_by_bf16_is_measured_where_a_cpu_has_it_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    monkeypatch.setattr(device_module, "_cpu_has_bf16", lambda: True)
    with torch.no_grad():
        assert bf16_speedup_of_cpu() > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(device_module, "_cpu_has_bf16", lambda: False)
    assert bf16_speedup_of_cpu() == 0


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
    narrow, wide = (
        build_backbone(BackboneConfig(name="resnet10", width=width)) for width in (8, 16)
    )
    assert resolve_memory_format("auto", wide, cpu) == torch.channels_last
    assert resolve_memory_format("auto", narrow, cpu) == torch.contiguous_format
    assert resolve_memory_format("auto", narrow, torch.device("cuda")) == torch.channels_last
    assert resolve_memory_format("contiguous", wide, cpu) == torch.contiguous_format
    with pytest.raises(ConfigError, match="memory_format=auto"):
        resolve_memory_format("channels_last", narrow, cpu)
