from __future__ import annotations

import copy
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from bench.bounds import LARGE, MEANINGS, PROMISES, SMALL, Work, judged
from bench.budget import affordable
from bench.contestants import mean_of_epoch
from bench.machine import file_name, flops_of
from bench.reference import ReferenceStep, boolean_mask_loss, host_sort
from bench.rounds import Times, cost, measure, round_ratios, whole_rounds
from bench.run import Settings, WarmedUp, _ways, run_bench, warm_up
from rich.console import Console
from step import step
from torch import nn

from sdclr import SDCLR, Views, nt_xent
from sdclr.compute.device_choices import Precision
from sdclr.errors import Preempted
from sdclr.presentation.progress import NoProgress, Progress

CPU = torch.device("cpu")


def small_sdclr() -> SDCLR:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.AdaptiveAvgPool2d(1),
    ]
    return SDCLR(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4)), prune_ratio=0.6).double()


def test_the_baselines_loss_is_the_same_loss() -> None:
    z_a, z_b = torch.randn(2, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(boolean_mask_loss(z_a, z_b, 0.3), nt_xent(z_a, z_b, 0.3).mean())


def test_the_baselines_three_forwards_and_two_backwards_give_the_joint_gradient() -> None:
    ours = small_sdclr()
    theirs = small_sdclr()
    a, b = torch.rand(
        2, 6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    step = ReferenceStep(theirs, CPU)
    step((a, b))
    ours(Views(a, b, torch.arange(6))).mean().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_the_baselines_host_sort_gives_our_masks() -> None:
    competitor = copy.copy(small_sdclr().competitor)
    for theirs, ours in zip(host_sort(competitor), competitor.masks().values(), strict=True):
        assert torch.equal(theirs.bool(), ours)


def test_actions_take_turns_and_no_round_begins_that_would_end_too_late() -> None:
    order: list[str] = []

    def action(name: str) -> float:
        order.append(name)
        return 1.0

    times = measure({"a": lambda: action("a"), "b": lambda: action("b")}, rounds=3, seconds=60)
    assert order == ["a", "b"] * 3
    assert times == {"a": [1.0] * 3, "b": [1.0] * 3}
    late: Times = {}
    measure({"a": lambda: action("a")}, rounds=100, seconds=0, into=late)
    assert late == {"a": [1.0]}
    assert [whole_rounds(some) for some in ({}, late, times, times | {"b": [1.0]})] == [0, 1, 3, 1]


def test_ratios_compare_what_ran_in_the_same_round() -> None:
    times = {"step": [2.0, 4.0], "refresh": [22.0, 44.0], "other": [1.0, 2.0]}
    assert cost(times, "step", "refresh", 22) == [3.0, 6.0]
    assert round_ratios(cost(times, "step", "refresh", 22), times["other"]) == [3.0, 3.0]
    assert round_ratios(times["step"], [1.5]) == [2.0], "the median over what was timed once"
    assert cost(times | {"refresh": [66.0]}, "step", "refresh", 22) == [6.0]


def test_every_promise_is_listed_with_a_verdict_or_a_reason() -> None:
    assert {bound.key for bound in PROMISES} <= set(MEANINGS)
    found = judged(
        {"sdclr_step_over_simclr_step": [1.1, 1.2, 1.0]},
        "cpu",
        SMALL["cpu"],
        {"views_over_pil_32px": "no images"},
    )
    assert len(found) == len(PROMISES)
    assert (found[0].value, found[0].met) == (1.1, True)
    assert not any(
        bound.met
        for bound in judged({"host_sort_over_mask_refresh": [1.1]}, "cpu", SMALL["cpu"], {})
    )
    reasons = {(bound.key, bound.device): bound.why for bound in found}
    assert reasons["views_over_pil_32px", "cpu"] == "no images"
    assert {why for (_, device), why in reasons.items() if device == "cuda"} == {"no CUDA device"}


def test_promises_are_judged_on_the_work_they_are_made_for() -> None:
    ratios = {"views_share_of_step": [0.04], "utilisation": [0.3]}
    for work, expected in ((SMALL["cuda"], [False, None, True]), (LARGE, [None, True, None])):
        found = judged(ratios, "cuda", work, {})
        assert [bound.met for bound in found if bound.key in ratios] == expected
    other = judged({"host_sort_over_mask_refresh": [9.0]}, "cpu", Work("resnet10", 2, 32, 4), {})
    assert not any(bound.met for bound in other)
    assert {bound.why for bound in other if bound.device == "cpu"} == {"resnet18, 32 px only"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--precision", ""], "got nothing"),
        (["--json", "nowhere/x.json"], "the folder nowhere does not exist"),
        (["--backbone", "timm:resnet10t", "--width", "7"], "--width is for our own ResNets"),
        (["--compile", "cuda-graphs", "--device", "cpu"], "cuda-graphs needs a CUDA device"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_measured(
    flags: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["step.py", *flags])
    with pytest.raises(SystemExit) as stop:
        typer.run(step)
    assert stop.value.code == 78
    assert words in " ".join(capsys.readouterr().err.split())


def test_on_cuda_the_bench_does_what_auto_does_and_sets_the_compiled_step_beside_graphs() -> None:
    cuda, graphs = torch.device("cuda"), ("bf16", "cuda-graphs")

    def ways(settings: Settings, precisions: list[Precision], graphed: bool = True) -> object:
        return _ways(settings, precisions, cuda, graphed=graphed)

    assert ways(Settings(), ["bf16", "fp32"]) == [
        graphs,
        ("bf16", True),
        ("fp32", "cuda-graphs"),
    ]
    assert ways(Settings(size=224), ["bf16"], graphed=False) == [("bf16", True)]
    assert ways(Settings(compiled="both"), ["bf16"]) == [("bf16", True), ("bf16", False)]
    assert ways(Settings(compiled="cuda-graphs"), ["bf16"]) == [graphs]
    assert _ways(Settings(), ["fp32"], CPU, graphed=True) == [("fp32", False)]


def test_a_step_of_an_epoch_has_its_share_of_what_begins_it() -> None:
    done: list[str] = []
    action = mean_of_epoch(lambda: done.append("step"), lambda: done.append("begin"), CPU)
    assert action() > 0
    assert done == ["begin"] + 22 * ["step"]


def test_cuda_graphs_that_fail_cost_the_bench_nothing_else() -> None:
    calls: list[str] = []

    def failing() -> float:
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")

    def action(name: str) -> float:
        calls.append(name)
        return 1.0

    graphs, others = (
        "sdclr_step[bf16,cuda-graphs]",
        ("simclr_step[bf16,cuda-graphs]", "sdclr_step[bf16,compiled]"),
    )
    actions = {graphs: failing, "loss": lambda: action("loss")} | {
        n: partial(action, n) for n in others
    }
    found = WarmedUp()
    warm_up(actions, found, CPU, "bf16,compiled")
    assert found.failed == {graphs: "failed: operation not permitted when stream is capturing"}
    assert list(actions) == ["loss", *others]
    assert set(found.seconds) == set(actions)
    assert calls == [*[others[1]] * 2, *[others[0]] * 3, "loss"], (
        "compiled, run; warmed up, recorded, replayed"
    )
    assert list(found.memory) == [others[1]], "a replay has no peak of its own"
    with pytest.raises(RuntimeError, match="not permitted"):
        warm_up({graphs: failing}, WarmedUp(), CPU, "bf16,cuda-graphs")


def test_what_matters_most_is_measured_when_time_is_short() -> None:
    seconds = {
        "loss": 1.0,
        "sdclr_step[fp32]": 50.0,
        "simclr_step[fp32]": 50.0,
        "mask_refresh": 1.0,
    }
    seconds |= {"reference_step": 60.0, "views": 2.0, "pil_views": 8.0, "sdclr_step[bf16]": 40.0}
    assert affordable(seconds, 1000, "fp32") == list(seconds)
    kept = affordable(seconds, 115, "fp32")
    assert set(seconds) - set(kept) == {"reference_step", "sdclr_step[bf16]"}
    assert set(affordable(seconds, 0, "fp32")) == {
        "sdclr_step[fp32]",
        "simclr_step[fp32]",
        "mask_refresh",
    }


def test_a_bench_without_time_says_what_it_left_out_and_is_finished(tmp_path: Path) -> None:
    settings = Settings("resnet10", 2, 32, 4, ("fp32",), minutes=1e-9, device="cpu")
    out = io.StringIO()
    with Progress(Console(file=out, width=200)) as progress:
        console = Console(file=out, width=200)
        facts = run_bench(
            settings, json_file=tmp_path / "x.json", console=console, progress=progress
        )
    measured = {"sdclr_step[fp32]", "simclr_step[fp32]", "mask_refresh"}
    assert set(facts["seconds"]) == measured
    assert facts["n"] == 1
    assert set(facts["ratios"]) == {"sdclr_step_over_simclr_step"}
    assert "reference_step: left out" in out.getvalue()
    assert "100 %" in out.getvalue()
    assert {bound["why"] for bound in facts["bounds"] if bound["key"] == "views_over_pil_32px"}


class StopsAfter(NoProgress):
    """SIGTERM once so many actions are timed."""

    def __init__(self, actions: int) -> None:
        self.left = actions

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def children_as_before() -> Iterator[None]:
    """A bench that is told to stop hears no more of its workers, and neither would this process."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.journeys
@pytest.mark.usefixtures("children_as_before")
def test_a_bench_that_is_told_to_stop_writes_what_it_has_timed(tmp_path: Path) -> None:
    settings = Settings("resnet10", 2, 32, 4, ("fp32",), rounds=3, device="cpu")
    console = Console(file=io.StringIO())

    def facts_after(actions: int) -> dict[str, Any]:
        file = tmp_path / f"{actions}.json"
        run_bench(settings, json_file=file, console=console, progress=StopsAfter(actions))
        return json.loads(file.read_text())

    warming_up = facts_after(5)
    assert len(warming_up["seconds"]) == 5
    assert warming_up["n"] == 1
    assert warming_up["remarks"]["bench"] == "stopped by SIGTERM"
    assert warming_up["remarks"]["mask_refresh"] == "timed once, in its first call: in no ratio"
    assert warming_up["remarks"]["reference_step"] == "left out: stopped by SIGTERM"
    assert warming_up["ratios"] == {}, "of cold calls"
    a_round = len(warming_up["remarks"]) - 1
    rounds = facts_after(3 * a_round + 1)  # one to warm up, two, and the third's first
    assert rounds["n"] == 2
    assert rounds["remarks"] == {"bench": "stopped by SIGTERM"}
    with pytest.raises(
        Preempted, match=r"stopped by SIGTERM before sdclr_step.* nothing is written"
    ):
        facts_after(1)
    assert not (tmp_path / "1.json").exists()


def test_flops_are_those_of_the_products() -> None:
    assert flops_of(lambda: torch.ones(3, 5) @ torch.ones(5, 7)) == 2 * 3 * 5 * 7


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        ("CPU: AMD EPYC, 2 of 2 threads", "2026-11-23-amd-epyc-2-threads.json"),
        (
            "CPU: Intel(R) Xeon(R) Processor, 2 of 4 threads",
            "2026-11-23-intel-xeon-processor-2-threads.json",
        ),
        ("CUDA: NVIDIA H100 80GB HBM3", "2026-11-23-nvidia-h100-80gb-hbm3.json"),
    ],
)
def test_results_are_named_by_date_and_hardware(hardware: str, expected: str) -> None:
    assert file_name("2026-11-23", hardware) == expected
    assert file_name("2026-11-23", hardware, "resnet50 224px") == expected.replace(
        ".json", "-resnet50-224px.json"
    )


@pytest.mark.journeys
def test_the_bench_writes_what_it_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = "--backbone resnet10 --width 2 --batch 4 --rounds 2 --precision fp32 --device cpu --json out.json"
    monkeypatch.setattr(sys, "argv", ["step.py", *tiny.split()])
    with pytest.raises(SystemExit) as stop:
        typer.run(step)
    assert not stop.value.code
    facts = json.loads(Path("out.json").read_text())
    assert facts["n"] == 2
    required = {"sdclr_step_over_simclr_step", "end_to_end_over_reference", "views_over_pil_32px"}
    assert required | {"host_sort_over_mask_refresh"} <= set(facts["ratios"])
    assert set(facts["ratios"]) == set(facts["ratio_ranges"]) == set(facts["ratio_meanings"])
    assert len(facts["bounds"]) == len(PROMISES)
    assert all(
        low <= facts["ratios"][key] <= high for key, (low, high) in facts["ratio_ranges"].items()
    )
    seconds = facts["seconds"]
    share = seconds["mask_refresh"]["median"] / 22
    ratio = (seconds["sdclr_step[fp32]"]["median"] + share) / seconds["simclr_step[fp32]"]["median"]
    low, high = facts["ratio_ranges"]["sdclr_step_over_simclr_step"]
    assert low - 1e-9 <= ratio <= high + 1e-9, (
        "of two rounds, the ratio of means lies between the ratios"
    )
    printed = capsys.readouterr().out
    assert "no CUDA device" in printed
    assert "end_to_end_over_reference" in printed
    assert "sdclr_step[fp32]" in printed


@pytest.mark.parametrize("wrong", ["--precision fp8", "--compile maybe"])
def test_what_the_bench_does_not_know_is_refused(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["step.py", "--json", "/dev/null", *wrong.split()])
    with pytest.raises(SystemExit) as stop:
        typer.run(step)
    assert stop.value.code == 78
