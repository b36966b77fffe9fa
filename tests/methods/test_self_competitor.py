from __future__ import annotations

import copy
import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.layers import Conv2dSame, StdConv2d
from torch import nn
from torch.func import functional_call
from torch.nn.utils import prune

from sdclr import SelfCompetitor, nt_xent
from sdclr.errors import ConfigError


def images(count: int = 4, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten(),
        nn.LazyLinear(6),
    )  # fmt: skip


@pytest.fixture
def network() -> nn.Module:
    network = small_network()
    network(images(size=8))
    return network


def test_masks_keep_the_largest_weights_under_one_threshold(network: nn.Module) -> None:
    competitor = SelfCompetitor(network, prune_ratio=0.7)
    masks = competitor.masks()
    weights = torch.cat([network.get_parameter(name).flatten() for name in masks])
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    assert weights[kept].abs().min() > weights[~kept].abs().max()
    assert int((~kept).sum()) == math.ceil(0.7 * len(kept))
    assert set(masks) == {"0.weight", "3.weight"}, "the linear layer is not pruned"


def test_the_parameters_are_the_networks_own_but_for_the_norms(network: nn.Module) -> None:
    competitor = SelfCompetitor(network)
    own = {id(p) for p in competitor.parameters()} - {id(p) for p in network.parameters()}
    shared = {id(p) for p in competitor.parameters()} & {id(p) for p in network.parameters()}
    assert len(own) == 4  # weight and bias of two batch norms
    assert len(shared) == 6


def test_masked_weights_get_no_gradient_from_the_competitor_and_the_network_is_untouched(
    network: nn.Module,
) -> None:
    before = {k: v.clone() for k, v in network.state_dict().items()}
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    competitor(images(size=8)).square().sum().backward()
    for name, mask in competitor.masks().items():
        gradient = network.get_parameter(name).grad
        assert gradient is not None
        assert (gradient[~mask] == 0).all()
        assert (gradient[mask] != 0).any()
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_each_branch_keeps_its_own_statistics_unless_they_are_shared(network: nn.Module) -> None:
    for norms, equal in (("own", False), ("shared", True)):
        net = copy.deepcopy(network)
        competitor = SelfCompetitor(net, norms=norms)  # type: ignore[arg-type]
        start = net[1].running_mean.clone()
        competitor(images(size=8))
        assert torch.equal(net[1].running_mean, start) is not equal
        assert (net[1] is competitor.twin[1]) is equal
        tracked = 2 if equal else 1
        # one forward at construction of the fixture
        assert int(net[1].num_batches_tracked) == tracked


def test_layer_norms_are_own_only_when_asked() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    for norms, own in (("own", 0), ("own_all", 2)):
        competitor = SelfCompetitor(net, norms=norms)  # type: ignore[arg-type]
        assert (
            sum(id(p) not in {id(q) for q in net.parameters()} for p in competitor.parameters())
            == own
        )


def two_backward_gradients(
    network: nn.Module, competitor: SelfCompetitor, views: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The reference's arithmetic: competitor without gradient, target backward, competitor again, its backward.

    Written with functional_call on the plain network: the masks multiply the weights, the norms are swapped.
    """
    masks = competitor.masks()
    twin_state = {
        k.removeprefix("twin."): v
        for k, v in competitor.named_parameters()
        if k.startswith("twin.")
    }
    dense = dict(network.named_parameters())
    norms = {k: v for k, v in twin_state.items() if k in dense and v is not dense[k]}
    pruned = {k: v * masks[k] if k in masks else v for k, v in dense.items()} | norms
    frozen = {k: v.clone() for k, v in network.named_buffers()}

    def branch(parameters: dict[str, torch.Tensor], view: torch.Tensor) -> torch.Tensor:
        return functional_call(
            network, parameters | {k: v.clone() for k, v in frozen.items()}, (view,)
        )

    leaves = [*dense.values(), *norms.values()]
    names = [*dense, *(f"own {k}" for k in norms)]
    with torch.no_grad():
        z_competitor = branch(pruned, views[1])
    loss = nt_xent(branch(dense, views[0]), z_competitor, 0.2).mean()
    first = torch.autograd.grad(loss, leaves, allow_unused=True)
    with torch.no_grad():
        z_target = branch(dense, views[0])
    loss = nt_xent(z_target, branch(pruned, views[1]), 0.2).mean()
    second = torch.autograd.grad(loss, leaves, allow_unused=True)
    pairs = zip(first, second, leaves, strict=True)
    gradients = [
        sum(g for g in (a, b) if g is not None) + torch.zeros_like(leaf) for a, b, leaf in pairs
    ]
    return dict(zip(names, gradients, strict=True))


@pytest.mark.journeys
def test_the_joint_step_gives_the_two_backward_gradients_on_resnet18() -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=16).double()
    competitor = SelfCompetitor(network, prune_ratio=0.9)
    with torch.no_grad():
        for own in set(competitor.parameters()) - set(network.parameters()):
            # the norms of the two branches must differ to tell them apart
            own += 0.1 * torch.randn_like(own)
    views = torch.stack([images(6, 32, 1), images(6, 32, 2)]).double()
    expected = two_backward_gradients(network, competitor, views)
    nt_xent(network(views[0]), competitor(views[1]), 0.2).mean().backward()
    assert len(expected) == 62 + 40
    names = {id(p): k for k, p in network.named_parameters()}
    own = {
        f"own {k.removeprefix('twin.')}": p
        for k, p in competitor.named_parameters()
        if id(p) not in names
    }
    actual = {k: p.grad for k, p in network.named_parameters()} | {
        k: p.grad for k, p in own.items()
    }
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=0, atol=1e-10)
        assert gradient.abs().max() > 0


STOCK = {
    "torchvision resnet18": lambda: torchvision.models.resnet18(num_classes=8),
    "timm resnet10t": lambda: timm.create_model("resnet10t", num_classes=8),
    "timm convnext": lambda: timm.create_model("convnext_atto", num_classes=8),
    "timm vit": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=8, depth=2
    ),
    "torchvision vit": lambda: torchvision.models.VisionTransformer(
        32, 16, 2, 2, 32, 64, num_classes=8
    ),
}


@pytest.mark.journeys
@pytest.mark.parametrize("name", STOCK)
def test_any_stock_network_works_unchanged(name: str) -> None:
    network = STOCK[name]()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn_like(parameter)  # some heads start at zero
    prunable = "conv+linear" if "vit" in name or "convnext" in name else "conv"
    competitor = SelfCompetitor(network, prune_ratio=0.5, prunable=prunable)  # type: ignore[arg-type]
    z_target, z_competitor = (
        network(images(4, 64 if "convnext" in name else 32)),
        competitor(images(4, 64 if "convnext" in name else 32)),
    )
    nt_xent(z_target, z_competitor, 0.2).mean().backward()
    assert not torch.equal(z_target, z_competitor)
    assert float(competitor.sparsity()) == pytest.approx(0.5, abs=0.01)
    STOCK[name]().load_state_dict(network.state_dict(), strict=True)


def test_packed_attention_weights_are_pruned() -> None:
    competitor = SelfCompetitor(STOCK["torchvision vit"](), prunable="conv+linear")
    assert any("in_proj_weight" in name for name in competitor.masks())


def test_an_unpruned_competitor_with_shared_norms_is_the_network_itself(network: nn.Module) -> None:
    competitor = SelfCompetitor(network, prune_ratio=0.0, norms="shared")
    assert torch.equal(network(images(size=8)), competitor(images(size=8)))


def test_the_state_dict_holds_its_own_norms_and_masks_alone_and_loads_strictly(
    network: nn.Module,
) -> None:
    competitor = SelfCompetitor(network)
    state = competitor.state_dict()
    assert not any(
        torch.equal(v, network[6].weight)
        for v in state.values()
        if v.shape == network[6].weight.shape
    )
    assert sum("mask" in key for key in state) == 3  # two masks and the churn
    other = SelfCompetitor(copy.deepcopy(network), prune_ratio=0.5)
    other.load_state_dict(state, strict=True)
    assert all(
        torch.equal(a, b)
        for a, b in zip(other.masks().values(), competitor.masks().values(), strict=True)
    )
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({k: v for k, v in state.items() if "running_mean" not in k})


def test_ties_survive_assignment_and_a_change_of_dtype(network: nn.Module) -> None:
    competitor = SelfCompetitor(network)
    network.load_state_dict({k: v.clone() for k, v in network.state_dict().items()}, assign=True)
    with pytest.warns(UserWarning, match="optimizer built before"):
        competitor.refresh_masks()
    assert competitor.twin[0].parametrizations.weight.original is network[0].weight
    both = nn.ModuleDict({"network": network, "competitor": competitor}).double()
    both.load_state_dict({k: v.clone() for k, v in both.state_dict().items()}, assign=True)
    assert competitor.twin[0].parametrizations.weight.original is network[0].weight
    assert competitor(images(size=8).double()).dtype == torch.float64


def test_a_refresh_follows_the_current_weights_and_measures_the_churn(network: nn.Module) -> None:
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    before = torch.cat([m.flatten().clone() for m in competitor.masks().values()])
    with torch.no_grad():
        network[0].weight.mul_(100)
    competitor.refresh_masks()
    after = torch.cat([m.flatten() for m in competitor.masks().values()])
    assert competitor.masks()["0.weight"].float().mean() > 0.9
    assert float(competitor.mask_churn) == pytest.approx(float((before != after).float().mean()))
    competitor.refresh_masks()
    assert float(competitor.mask_churn) == 0


def test_the_random_share_is_random_reproducible_and_of_the_right_size() -> None:
    net = nn.Conv2d(64, 64, 5)
    magnitude = SelfCompetitor(net, prune_ratio=0.3).masks()["weight"]
    mixed = SelfCompetitor(net, prune_ratio=0.6, random_share=0.3, seed=1)
    mask = mixed.masks()["weight"].clone()
    assert not mask[~magnitude].any(), "what magnitude alone prunes stays pruned"
    assert float((~mask).float().mean()) == pytest.approx(0.6, abs=0.01)
    mixed.refresh_masks(draw=1)
    assert not torch.equal(mixed.masks()["weight"], mask)
    mixed.refresh_masks(draw=0)
    assert torch.equal(mixed.masks()["weight"], mask)


def test_what_cannot_be_pruned_is_refused_with_a_cure(network: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 0\.9"):
        SelfCompetitor(network, prune_ratio=90)
    with pytest.raises(ConfigError, match=r"conv\+linear"):
        SelfCompetitor(nn.Linear(3, 3))
    with pytest.raises(ConfigError, match="parametrised already"):
        SelfCompetitor(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3)))
    tied = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ConfigError, match="are one tensor"):
        SelfCompetitor(tied)
    with pytest.raises(ConfigError, match="random_share"):
        SelfCompetitor(network, prune_ratio=0.3, random_share=0.5)


@pytest.mark.slow
def test_the_competitor_compiles_in_one_graph_and_a_refresh_does_not_recompile(
    network: nn.Module,
) -> None:
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    compiled = torch.compile(competitor, fullgraph=True)
    torch.testing.assert_close(
        compiled(images(size=8)), competitor(images(size=8)), atol=1e-5, rtol=1e-5
    )
    with torch.no_grad():
        network[0].weight.normal_()
    competitor.refresh_masks()
    with torch.compiler.set_stance("fail_on_recompile"):
        result = compiled(images(size=8))
    torch.testing.assert_close(result, competitor(images(size=8)), atol=1e-5, rtol=1e-5)


def test_a_layer_replaced_by_one_of_its_kind_is_followed_with_a_warning(network: nn.Module) -> None:
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    network[3] = nn.Conv2d(8, 8, 3, stride=2)
    network[6] = nn.Linear(32, 4)
    with pytest.warns(UserWarning, match="build it again"):
        competitor.refresh_masks()
    assert competitor(images(size=8)).shape == (4, 4)
    assert competitor.twin[3].stride == (2, 2)
    assert competitor.masks()["3.weight"].sum() < network[3].weight.numel()
    competitor(images(size=8)).sum().backward()
    assert network[6].weight.grad is not None, "the new layer is trained through both branches"


def test_a_layer_of_another_shape_gets_a_mask_of_that_shape(network: nn.Module) -> None:
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    network[3] = nn.Conv2d(8, 8, 5, padding=1)
    with pytest.warns(UserWarning, match="build it again"):
        competitor.refresh_masks()
    assert competitor.masks()["3.weight"].shape == (8, 8, 5, 5)
    assert competitor.sparsity() == pytest.approx(0.5, abs=0.01)


def drop_bias(network: nn.Module) -> None:
    network[0].bias = None


def fuse(network: nn.Module) -> None:
    network[0] = nn.utils.fuse_conv_bn_eval(network[0].eval(), network[1].eval())
    network[1] = nn.Identity()
    network[0].train()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda n: n.append(nn.ReLU()), "7 .ReLU. is new"),
        (lambda n: n.__delitem__(6), "6 .Linear. is missing"),
        (lambda n: n.__setitem__(2, nn.GELU()), "2 was ReLU and is GELU"),
        (lambda n: n.__setitem__(1, nn.SyncBatchNorm(8)), "1 was BatchNorm2d and is SyncBatchNorm"),
        (lambda n: n.__setitem__(1, nn.BatchNorm2d(9)), "1 has other shapes"),
        (lambda n: nn.utils.parametrizations.weight_norm(n[0]), r"0\.parametrizations .* is new"),
        (lambda n: nn.utils.spectral_norm(n[0]), "0 had .* weight_orig"),
        (lambda n: prune.l1_unstructured(n[0], "weight", 0.5), "0 had .* weight_mask"),
        (drop_bias, "0 had bias, weight and has weight"),
        (fuse, "1 was BatchNorm2d and is Identity"),
    ],
)
def test_a_network_that_became_another_one_is_refused(
    network: nn.Module, change: Callable[[nn.Module], object], named: str
) -> None:
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    change(network)
    with pytest.raises(ConfigError, match=named):
        competitor.refresh_masks()


def test_a_classifier_that_timm_resets_is_refused_or_followed() -> None:
    network = timm.create_model("resnet18", num_classes=10)
    competitor = SelfCompetitor(network)
    network.reset_classifier(3)
    with pytest.warns(UserWarning, match="build it again"):
        competitor.refresh_masks()
    assert competitor.eval()(images(1)).shape == (1, 3)
    network.reset_classifier(0)
    with pytest.raises(ConfigError, match="fc was Linear and is Identity"):
        competitor.refresh_masks()


def test_norms_converted_in_both_branches_are_no_change(network: nn.Module) -> None:
    both = nn.ModuleList([network, SelfCompetitor(network, prune_ratio=0.5)])
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(both)
    converted[1].refresh_masks()
    assert converted[1].twin[1].weight is not converted[0][1].weight
    assert converted[1].twin[0].bias is converted[0][0].bias


def test_plain_attributes_changed_later_are_taken_over(network: nn.Module) -> None:
    network[2] = nn.Dropout(0.1)
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    network[2].p = 0.7
    network[1].momentum = 0.3
    network.eval()
    competitor.refresh_masks()
    assert (competitor.twin[2].p, competitor.twin[1].momentum) == (0.7, 0.3)
    assert competitor.twin.training, "whether a branch trains is its own affair"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (nn.utils.spectral_norm, r"0\.weight is computed from weight_orig"),
        (nn.utils.parametrizations.spectral_norm, "parametrised already"),
        (lambda conv: prune.random_unstructured(conv, "weight", 0.5), "weight_orig"),
        (lambda conv: prune.ln_structured(conv, "weight", 0.5, n=2, dim=0), "weight_orig"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*deprecated:FutureWarning")
def test_a_weight_that_is_computed_from_others_is_refused(
    change: Callable[[nn.Module], nn.Module], named: str
) -> None:
    network = nn.Sequential(change(nn.Conv2d(3, 3, 3)), nn.Conv2d(3, 3, 3))
    with pytest.raises(ConfigError, match=named):
        SelfCompetitor(network)
    SelfCompetitor(network, spared=["0"])  # the cure that the message names


def test_a_weight_without_a_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="Run the network once"):
        SelfCompetitor(nn.Sequential(nn.LazyConv2d(3, 3)))


def test_standardised_weights_and_a_small_prunable_share_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="weight standardisation"):
        SelfCompetitor(nn.Sequential(StdConv2d(3, 3, 3), Conv2dSame(3, 3, 3)))
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1)
    with pytest.warns(UserWarning, match=r"only \d\d?\.\d% of the network's weights are prunable"):
        competitor = SelfCompetitor(vit)
    assert competitor.prunable_share < 0.25
    assert SelfCompetitor(vit, prunable="conv+linear").prunable_share > 0.9
    assert SelfCompetitor(nn.Sequential(Conv2dSame(3, 3, 3))).prunable_share > 0.9


class Remembering(nn.Module):
    """Holds what a copy refuses: its last feature map, a lock, a file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.lock = threading.Lock()
        self.last: torch.Tensor | None = None
        self.history: list[torch.Tensor] = []

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 1}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.lock:
            self.last = self.conv(x)
            self.history.append(self.last)
        return self.last.mean((2, 3))


def test_a_network_that_holds_a_feature_map_a_lock_or_extra_state_gets_its_competitor() -> None:
    network = Remembering()
    network(images(size=8))
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    assert not torch.equal(competitor(images(size=8)), network(images(size=8)))
    state = competitor.state_dict()
    SelfCompetitor(network, prune_ratio=0.5).load_state_dict(state)
    competitor.refresh_masks()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_a_copy_that_would_call_the_original_is_refused(network: nn.Module) -> None:
    for wrapped in (
        torch.compile(network),
        nn.DataParallel(network),
        nn.Sequential(torch.compile(network)),
    ):
        with pytest.raises(ConfigError, match="wrapped"):
            SelfCompetitor(wrapped)
    with pytest.raises(ConfigError, match="TorchScript"):
        SelfCompetitor(torch.jit.trace(network.eval(), images(size=8)))
    network[0].forward = functools.partial(nn.Conv2d.forward, network[0])
    with pytest.raises(ConfigError, match=r"0\.forward was replaced"):
        SelfCompetitor(network)


class Configured(nn.Module):
    """What it computes depends on attributes of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act: Callable[[torch.Tensor], torch.Tensor] = torch.nn.functional.relu
        self.cfg = {"scale": 1.0, "deep": [1.0]}
        self.shifts = [0.5]
        self.plain = torch.ones(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x)) * self.cfg["scale"] * self.cfg["deep"][0] + self.shifts[0]  # type: ignore[index, operator]
        return (x * self.plain).mean((2, 3))


def set_mode(network: Configured) -> None:
    network.conv.padding_mode, network.conv.padding = "reflect", (1, 1)
    network.conv._reversed_padding_repeated_twice = [1] * 4


@pytest.mark.parametrize(
    "change",
    [
        lambda n: setattr(n, "act", torch.sigmoid),
        lambda n: n.cfg.update(scale=3.0),
        lambda n: n.cfg["deep"].__setitem__(0, 3.0),
        lambda n: n.shifts.__setitem__(0, 2.0),
        lambda n: n.plain.fill_(3.0),
        lambda n: setattr(n, "plain", torch.full((1,), 3.0)),
        set_mode,
    ],
)
def test_attributes_of_any_kind_are_followed(change: Callable[[nn.Module], object]) -> None:
    network = Configured()
    competitor = SelfCompetitor(network, prune_ratio=0.0)
    before = network(images(size=8))
    torch.testing.assert_close(competitor(images(size=8)), before)
    change(network)
    competitor.refresh_masks()
    assert not torch.allclose(network(images(size=8)), before)
    torch.testing.assert_close(competitor(images(size=8)), network(images(size=8)))


def test_hooks_are_followed_with_a_warning() -> None:
    network = Configured()
    competitor = SelfCompetitor(network, prune_ratio=0.0)
    handles = [
        network.conv.register_forward_hook(lambda module, inputs, output: 2 * output),
        network.conv.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,)),
    ]
    with pytest.warns(UserWarning, match="forward hooks of conv have changed"):
        competitor.refresh_masks()
    torch.testing.assert_close(competitor(images(size=8)), network(images(size=8)))
    for handle in handles:
        handle.remove()
    with pytest.warns(UserWarning, match="forward hooks of conv have changed"):
        competitor.refresh_masks()
    torch.testing.assert_close(competitor(images(size=8)), network(images(size=8)))


def doubled_by(layer: nn.Module, module: nn.Module, inputs: Any, output: torch.Tensor) -> Any:
    """A hook that needs another layer's weight."""
    return output * layer.weight.sum()


@pytest.mark.parametrize("built", ["before", "after"])
def test_a_hook_that_is_a_partial_of_a_layer_is_of_the_twins(built: str) -> None:
    network = Configured()
    early = SelfCompetitor(network, prune_ratio=0.5) if built == "before" else None
    network.conv.register_forward_hook(functools.partial(doubled_by, network.conv))
    if early is None:
        competitor = SelfCompetitor(network, prune_ratio=0.5)
    else:
        competitor = early
        with pytest.warns(UserWarning, match="forward hooks of conv have changed") as told:
            competitor.refresh_masks()
        assert len(told) == 1
    masked = copy.deepcopy(network)
    with torch.no_grad():
        masked.conv.weight *= competitor.masks()["conv.weight"]
    torch.testing.assert_close(competitor(images(size=8)), masked(images(size=8)))


def test_a_hook_that_has_closed_over_a_layer_is_warned_of() -> None:
    network = Configured()
    network.conv.register_forward_hook(lambda *args: doubled_by(network.conv, *args))
    words = "a forward hook of conv holds a part of the network"
    with pytest.warns(UserWarning, match=words):
        competitor = SelfCompetitor(network, prune_ratio=0.5)
    seen: list[torch.Tensor] = []
    network.conv.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.register_forward_hook(lambda *args: doubled_by(network.conv, *args))
    with pytest.warns(UserWarning, match="holds a part|have changed") as told:
        competitor.refresh_masks()
    assert sum("holds a part" in str(one.message) for one in told) == 2, "conv's and the network's"


def test_a_hook_that_is_a_partial_of_a_weight_is_warned_of() -> None:
    network = Configured()
    network.conv.register_forward_hook(functools.partial(scaled_by, network.conv.weight))
    with pytest.warns(UserWarning, match="a forward hook of conv holds a part of the network"):
        SelfCompetitor(network, prune_ratio=0.5)


def scaled_by(weight: torch.Tensor, module: nn.Module, inputs: Any, output: torch.Tensor) -> Any:
    return output * weight.sum()


class Watching:
    """A hook that cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        pass


def test_a_later_hook_that_cannot_be_copied_is_refused() -> None:
    network = Configured()
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    network.conv.register_forward_hook(Watching())
    with pytest.raises(ConfigError, match=r"hook of the network \(Watching\) cannot be copied"):
        competitor.refresh_masks()


def test_a_later_hook_of_a_norms_buffer_is_of_the_twins_own() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    norm.register_forward_hook(functools.partial(shifted_by, norm.running_mean))
    with pytest.warns(UserWarning, match="forward hooks of .* have changed"):
        competitor.refresh_masks()
    twin = next(
        module for module in competitor.twin.modules() if isinstance(module, nn.BatchNorm2d)
    )
    (hook,) = twin._forward_hooks.values()
    assert hook.args[0] is twin.running_mean


def shifted_by(mean: torch.Tensor, module: nn.Module, inputs: Any, output: torch.Tensor) -> Any:
    return output + mean.view(-1, 1, 1)


def test_a_weight_that_a_list_holds_beside_its_layer_is_warned_of() -> None:
    network = Configured()
    network.weights = [network.conv.weight]
    with pytest.warns(UserWarning, match=r"the network\.weights holds weights that are pruned"):
        SelfCompetitor(network, prune_ratio=0.5)


def test_a_list_that_holds_itself_is_nothing_to_follow() -> None:
    network = Configured()
    network.trace = []
    network.trace.append(network.trace)
    competitor = SelfCompetitor(network, prune_ratio=0.0)
    competitor.refresh_masks()
    torch.testing.assert_close(competitor(images(size=8)), network(images(size=8)))


def test_nan_is_not_hidden_by_a_mask() -> None:
    network = Configured()
    with torch.no_grad():
        network.conv.weight[0, 0, 0, 0] = torch.nan
    assert SelfCompetitor(network, prune_ratio=0.9)(images(size=8)).isnan().any()


def test_another_order_of_layers_and_a_replaced_forward_are_refused(network: nn.Module) -> None:
    competitor = SelfCompetitor(network, prune_ratio=0.5)
    forward = network[0].forward
    network[0].forward = lambda x: 2 * forward(x)
    with pytest.raises(ConfigError, match=r"0\.forward was replaced"):
        competitor.refresh_masks()
    del network[0].forward
    relu = network._modules.pop("2")
    network._modules["2"] = relu
    with pytest.raises(ConfigError, match="another order"):
        competitor.refresh_masks()


class Normalised(nn.Conv1d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)


class Elsewhere(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(3, 3, 3)
        self.kernel = nn.Parameter(torch.rand(3, 3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.kernel, self.bias)


@pytest.mark.parametrize("layer", [Normalised(3, 3, 3), Elsewhere()])
def test_a_layer_that_does_not_use_its_weight_as_stored_is_warned_of(layer: nn.Module) -> None:
    with pytest.warns(UserWarning, match="as it is stored"):
        SelfCompetitor(nn.Sequential(layer))


def test_a_layer_in_several_places_is_pruned_once_and_stays_one_layer() -> None:
    class Shared(nn.Module):
        """As timm's CoaT: one layer, registered in the network and again in a block."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3)
            self.block = nn.Sequential(self.first, nn.Conv2d(3, 4, 3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.block(self.first(images))

    torch.manual_seed(0)
    shared, images = Shared(), torch.rand(2, 3, 9, 9)
    competitor = SelfCompetitor(shared, prune_ratio=0.5)
    assert competitor.prunable_share == pytest.approx((81 + 108) / (81 + 3 + 108 + 4))
    assert list(competitor.masks()) == ["first.weight", "block.1.weight"]
    with torch.no_grad():
        shared.first.weight += 0.1
    competitor.refresh_masks()
    pruned = copy.deepcopy(shared)
    with torch.no_grad():
        for name, mask in competitor.masks().items():
            pruned.get_parameter(name).mul_(mask)
    torch.testing.assert_close(competitor(images), pruned(images))
    again = SelfCompetitor(shared, prune_ratio=0.9)
    again.load_state_dict(competitor.state_dict())
    assert torch.equal(again(images), competitor(images))
    assert competitor.double()(images.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("conv", "linear", "resolved"), [(10, 10, "conv"), (10, 16, "conv+linear")]
)
def test_auto_prunes_linear_layers_too_where_convolutions_hold_less_than_half(
    conv: int, linear: int, resolved: str
) -> None:
    layers = nn.Sequential(
        nn.Conv2d(conv, 10, 1, bias=False), nn.Flatten(), nn.Linear(10, linear, bias=False)
    )
    assert SelfCompetitor(layers, prunable="auto").prunable == resolved
    assert SelfCompetitor(layers, prunable="conv+linear").prunable == "conv+linear"
    assert SelfCompetitor(layers).prunable == "conv", "the paper's stays the default"
    whole = SelfCompetitor(layers, prunable="auto", spared=("2",))
    assert (whole.prunable, whole.prunable_share) == ("conv", 1.0), "what is spared does not count"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"spared": "projektor"}, r"no such submodule; did you mean 'projector'\?"),
        ({"spared": ("0", "nothing")}, "spared names 'nothing'"),
        ({"prune_ratio": "0.9"}, r"^prune_ratio must be a number, got '0\.9'"),
        ({"dropout": None}, r"^dropout must be a number"),
        ({"prunable": lambda _, m: isinstance(m, (nn.Conv2d, nn.BatchNorm2d))}, "a norm that the"),
    ],
)
def test_settings_that_would_do_something_else_than_meant_are_refused(
    settings: dict[str, Any], words: str
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    network.add_module("projector", nn.Linear(8, 4))
    with pytest.raises(ConfigError, match=words):
        SelfCompetitor(network, **settings)
    with pytest.raises(ConfigError, match=r"must be an nn\.Module"):
        SelfCompetitor(nn.Conv2d)  # type: ignore[arg-type]


def test_one_name_spares_one_submodule(network: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3)))
    assert list(SelfCompetitor(network, spared="1").masks()) == ["0.weight"]


def test_a_branch_that_was_converted_alone_is_refused(network: nn.Module) -> None:
    competitor = SelfCompetitor(network)
    network.double()
    with pytest.raises(ConfigError, match=r"is torch\.float64 on cpu .* Convert or move both"):
        competitor.refresh_masks()
    competitor.double()
    competitor.refresh_masks()


class _Counting(nn.Conv2d):
    """Keeps a number of another type beside a masked weight."""

    def __init__(self) -> None:
        super().__init__(3, 8, 3, bias=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def test_tensors_of_other_types_beside_a_weight_and_networks_without_norms_are_no_mistake() -> None:
    SelfCompetitor(nn.Sequential(_Counting(), nn.BatchNorm2d(8))).refresh_masks()
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    network.register_buffer("mean", torch.zeros(3))
    competitor = SelfCompetitor(network, prune_ratio=np.float32(0.5))
    network.double()
    competitor.refresh_masks()
    assert competitor(images(size=8).double()).dtype == torch.float64


def test_a_layer_in_two_places_is_spared_by_either_name() -> None:
    layer = nn.Conv2d(3, 3, 3)
    network = nn.Sequential(nn.Conv2d(3, 3, 3), layer, nn.ReLU(), layer)
    for name in ("1", "3"):
        assert list(SelfCompetitor(network, spared=name).masks()) == ["0.weight"]


class Calling(nn.Module):
    """A network that calls its convolution through an attribute."""

    def __init__(self, through: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.steps = through(self.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = self.steps[0] if isinstance(self.steps, list) else self.steps
        return self.norm(step(x)).mean((2, 3))


def in_closure(conv: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: conv(x)


def with_default(conv: nn.Module) -> Callable[..., torch.Tensor]:
    def step(x: torch.Tensor, *, layer: nn.Module = conv) -> torch.Tensor:
        return layer(x)

    return step


class Called:
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.function = function

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def apply(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return layer(x)


@pytest.mark.parametrize(
    "through",
    [
        lambda conv: functools.partial(apply, conv),
        lambda conv: [functools.partial(apply, conv)],
        lambda conv: conv.forward,
    ],
    ids=["partial", "partial in a list", "method"],
)
def test_what_is_bound_to_a_layer_is_bound_to_the_twins_own(through: Any) -> None:
    network = Calling(through)
    competitor = SelfCompetitor(network, prune_ratio=0.9)
    competitor.refresh_masks()
    mask = competitor.masks()["conv.weight"]
    masked = copy.deepcopy(network)
    with torch.no_grad():
        masked.conv.weight *= mask
    expected = competitor.twin.norm(
        nn.functional.conv2d(images(), masked.conv.weight, masked.conv.bias)
    )  # type: ignore[operator, union-attr]
    torch.testing.assert_close(competitor(images()), expected.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert network.norm.num_batches_tracked == 0, "the norms are the twin's own"


@pytest.mark.parametrize(
    "through",
    [
        in_closure,
        lambda conv: [in_closure(conv)],
        lambda conv: functools.partial(in_closure(conv)),
        lambda conv: in_closure(conv.forward),
        lambda conv: (lambda held: lambda x: held["conv"](x))({"conv": conv}),
        lambda conv: Called(in_closure(conv)),
        lambda conv: with_default(conv),
    ],
)
def test_a_function_that_has_closed_over_a_layer_is_refused(through: Any) -> None:
    with pytest.raises(ConfigError, match="steps is a function that has closed over a part"):
        SelfCompetitor(Calling(through))


def test_a_function_that_has_closed_over_something_else_is_followed() -> None:
    teacher = nn.Conv2d(3, 8, 3)
    network = Calling(lambda conv: in_closure(teacher))
    competitor = SelfCompetitor(network)
    torch.testing.assert_close(competitor(images()), network(images()))


def test_a_function_that_has_closed_over_itself_is_looked_into_once() -> None:
    def step(x: torch.Tensor, again: bool = True) -> torch.Tensor:
        return step(x.mean((2, 3)), again=False) if again else x

    network = Calling(lambda conv: step)
    network.norm = nn.BatchNorm2d(3)
    SelfCompetitor(network)


def test_batch_norms_without_statistics_are_the_twins_own() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False))
    assert SelfCompetitor(plain).twin[1].weight is not plain[1].weight  # type: ignore[index]
    assert SelfCompetitor(plain, norms="shared").twin[1].weight is plain[1].weight  # type: ignore[index]


def test_random_masks_are_drawn_anew_at_each_refresh(network: nn.Module) -> None:
    def drawn(*numbers: int | None) -> list[torch.Tensor]:
        competitor = SelfCompetitor(network, prune_ratio=0.5, random_share=0.5, seed=np.int64(3))
        found = [competitor.masks()["0.weight"].clone()]
        for number in numbers:
            competitor.refresh_masks(number)
            found.append(competitor.masks()["0.weight"].clone())
        return found

    first, second, third = drawn(None, None)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    again, by_number, also = drawn(2, 1)
    assert torch.equal(first, again)
    assert torch.equal(third, by_number)
    assert torch.equal(second, also)


def test_attention_with_keys_of_another_size_is_pruned_whole() -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=6)
    names = set(SelfCompetitor(attention, prunable="conv+linear").masks())
    assert names == {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}


def test_a_chosen_layer_of_which_nothing_is_pruned_is_named() -> None:
    network = nn.ModuleDict({"rnn": nn.LSTM(4, 4), "head": nn.Linear(4, 40)})
    plain = nn.ModuleDict({"conv": nn.Conv2d(3, 40, 3), "head": nn.Linear(4, 4)})
    SelfCompetitor(plain, prunable=lambda name, module: name != "", spared="head")  # without a word
    with pytest.warns(UserWarning, match="prunable chooses rnn, whose parameters have names"):
        SelfCompetitor(
            network, prunable=lambda name, module: isinstance(module, nn.LSTM | nn.Linear)
        )


@pytest.mark.parametrize("prunable", [["linear"], None, True])
def test_prunable_of_another_type_is_refused(network: nn.Module, prunable: Any) -> None:
    with pytest.raises(ConfigError, match=r"conv, conv\+linear or a function"):
        SelfCompetitor(network, prunable=prunable)


@pytest.mark.parametrize("layer", [nn.LazyLinear(4), nn.LazyBatchNorm1d()])
def test_any_layer_without_a_shape_is_named(layer: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"2\.\w+ has no shape yet. Run the network once"):
        SelfCompetitor(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), layer))
