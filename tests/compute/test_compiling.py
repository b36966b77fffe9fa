"""What is compiled, and what runs where it does not compile."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdclr.compute.compiling import compiled, compiles_views, resolve_compile
from sdclr.errors import ConfigError

pytestmark = pytest.mark.compiles


def test_more_shapes_than_torch_compiles_run_as_they_are_after_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch raises an error of a class of its own then, after seconds of compiling; here it is raised at once."""
    exceptions = pytest.importorskip("torch._dynamo.exc")
    too_many = getattr(exceptions, "FailOnRecompileLimitHit", exceptions.TorchDynamoException)

    def refuse(x: torch.Tensor) -> torch.Tensor:
        raise too_many("Hard failure due to fullgraph=True")

    monkeypatch.setattr(torch, "compile", lambda function, **_: refuse)
    call = compiled(lambda x: x * 2 + 1, "doubling")
    with pytest.warns(
        UserWarning, match="doubling runs uncompiled, because torch.compile failed: Hard failure"
    ):
        assert torch.equal(call(torch.ones(3)), torch.full((3,), 3.0))
    assert torch.equal(call(torch.ones(4)), torch.full((4,), 3.0))


def test_compiling_is_automatic_on_cuda_for_long_runs_only() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [resolve_compile("auto", device) for device in (cpu, cuda)] == [False, True]
    assert resolve_compile("auto", cuda, num_steps=2200) is False
    assert resolve_compile("auto", cuda, graphs_hold=True) == "cuda-graphs"
    assert resolve_compile("auto", cuda, num_steps=2200, graphs_hold=True) is False
    assert resolve_compile("auto", cuda, several=True, graphs_hold=True) is False
    assert resolve_compile("auto", cpu, graphs_hold=True) is False
    assert resolve_compile(True, cuda, num_steps=1, graphs_hold=True) is True
    assert resolve_compile(True, cpu) is True
    assert resolve_compile("cuda-graphs", cuda) == "cuda-graphs"
    with pytest.raises(
        ConfigError, match="needs a CUDA device, and this run is on cpu; use compile=auto"
    ):
        resolve_compile("cuda-graphs", cpu)
    assert resolve_compile("auto", cuda, several=True) is False
    assert resolve_compile(True, cpu, several=True) is True
    with pytest.raises(ConfigError, match="cuda-graphs is for one process"):
        resolve_compile("cuda-graphs", cuda, several=True)


def test_views_are_compiled_where_their_pixels_are_many_and_never_against_compile_false() -> None:
    assert compiles_views("auto", 10_000, 32)
    assert not compiles_views("auto", 2200, 32)
    assert compiles_views("auto", 300, 224)
    assert compiles_views(True, 1, 8)
    assert not compiles_views(False, 10**6, 224)


def test_a_series_of_runs_compiles_more_shapes_than_torchs_own_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: real(function, backend="eager", **options)
    )
    run = compiled(lambda x: x + 1, "adding")
    for size in range(2, 14):
        assert torch.equal(run(torch.zeros(size)), torch.ones(size))
    assert run.how is True


def test_what_does_not_compile_runs_as_it_is_after_one_warning() -> None:
    def synchronises(x: torch.Tensor) -> float:
        return x.sum().item() if x.sum() > 0 else 0.0  # a branch on data: no single graph

    run = compiled(synchronises, "this function")
    with pytest.warns(
        UserWarning, match=r"^this function runs uncompiled, because torch\.compile failed: \S"
    ) as seen:
        results = [run(torch.ones(3)), run(torch.ones(4))]
    assert results == [3, 4]
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)


@pytest.mark.slow
def test_of_several_processes_one_alone_never_falls_back() -> None:
    from no_backward_kernel import Double

    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Double())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(
        ConfigError,
        match=r"a method does not compile: .*no kernel for the backward.* Use compile=false",
    ):
        compiled(network, "a method", required=True)(torch.rand(5, 3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.slow
def test_a_backward_pass_that_does_not_compile_leaves_the_function_as_it_is() -> None:
    """Before anything was computed: the statistics move once, and the gradients are those of the function itself."""
    from no_backward_kernel import Double

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Double(), nn.Linear(4, 2))
    network = copy.deepcopy(plain)
    run = compiled(network, "this network")

    def two_steps(forward: Callable[[Tensor], Tensor]) -> None:
        for _ in range(2):
            forward(torch.linspace(0, 1, 15).view(5, 3)).square().mean().backward()

    with pytest.warns(
        UserWarning, match="this network runs uncompiled, because .* no kernel for the backward"
    ) as seen:
        two_steps(run)
    assert (len(seen), run.how) == (1, False)
    two_steps(plain)
    for (name, expected), parameter in zip(
        plain.named_parameters(), network.parameters(), strict=True
    ):
        assert torch.equal(parameter.grad, expected.grad), name
    for (name, expected), buffer in zip(
        plain.named_buffers(), network.named_buffers(), strict=True
    ):
        assert torch.equal(buffer[1], expected), name


@pytest.mark.slow
def test_torch_knows_every_option_of_cuda_graphs_and_ignores_them_on_a_cpu() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    network = copy.deepcopy(plain)
    run = compiled(network, "this network", cuda_graphs=True)
    for size in (5, 5, 4):
        x = torch.rand(size, 3)
        torch.testing.assert_close(run(x), plain(x))
    assert run.how == "cuda-graphs"


def pretend_compiler(graphs: Callable[..., Any]) -> Callable[..., Any]:
    """A torch.compile that makes ``graphs`` where CUDA graphs are asked for, and leaves functions alone elsewhere."""
    return lambda function, options=None, **_: (
        graphs if options and options["triton.cudagraphs"] else function
    )


def test_what_is_not_captured_runs_compiled_after_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exceptions = pytest.importorskip("torch._dynamo.exc")

    def declines(x: Tensor) -> Tensor:
        cause = RuntimeError("skipping cudagraphs due to cpu device (x). Found from :\n line 3")
        raise exceptions.BackendCompilerFailed("inductor", cause, None)

    monkeypatch.setattr(torch, "compile", pretend_compiler(declines))
    run = compiled(lambda x: x + 1, "adding", cuda_graphs=True)
    assert run.how == "cuda-graphs"
    words = (
        r"^adding runs compiled, but without CUDA graphs, because torch\.compile failed: "
        "skipping cudagraphs due to cpu"
    )
    with pytest.warns(UserWarning, match=words) as seen:
        results = [run(torch.zeros(1)).item() for _ in range(2)]
    ours = [one for one in seen if issubclass(one.category, UserWarning)]  # old torch warns too
    assert (results, len(ours), run.how) == ([1, 1], 1, True)


def test_a_result_of_cuda_graphs_outlives_the_next_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays write into one place, again and again; every call says that a step begins."""
    memory, begun = torch.zeros(3), []

    def replay(x: Tensor) -> Tensor:
        return memory.copy_(2 * x)

    monkeypatch.setattr(torch, "compile", pretend_compiler(replay))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    run = compiled(lambda x: 2 * x, "doubling", cuda_graphs=True)
    first = run(torch.ones(3))
    run(torch.zeros(3))
    assert first.tolist() == [2, 2, 2]
    assert len(begun) == 2
