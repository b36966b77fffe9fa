"""JOB: a finished run -> what can be measured without labels, in RUN/examination/.

A sample of the run's images goes through the trained network and through the one it started from.
The folder contains numbers.json, map.json and small pictures: views, and images with their nearest neighbours.
Trains nothing; a report reads the folder without the images and without torch.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sdclr.backbones import Backbone, build_backbone
from sdclr.backbones.others_weights import is_others, load_others, read_others
from sdclr.backbones.weights import BackboneFacts, load_backbone, load_weights, read_backbone
from sdclr.batch import Views
from sdclr.compute.device import placed_on, resolve_device
from sdclr.compute.process_state import default_generators
from sdclr.compute.stateless_random import Stream, derive
from sdclr.config import user_path
from sdclr.data import Images
from sdclr.data.decoding.decode import printable
from sdclr.data.trained_images import sampled_images, unseen_views
from sdclr.errors import DataError, SdclrError
from sdclr.evaluation.rarity.preparation import principal_components
from sdclr.evaluation.representation import nearest
from sdclr.evaluation.without_labels import measure_without_labels, sample_features
from sdclr.planes import in_colours
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import Run
from sdclr.run.files import EXAMINATION_FOLDER, MAP_FILE
from sdclr.settings import PretrainConfig
from sdclr.storage.durable_files import make_folder, write_atomically

SAMPLE = 512
"""The most images: each goes three times through two networks, a minute for a ResNet-18 on two cores."""
NUM_VIEWS = 8
"""Images whose views are shown."""
NUM_QUERIES = 12
"""Images whose neighbours are shown."""
NUM_NEIGHBOURS = 5
THUMBNAIL = 112
"""Side of a picture in pixels."""
MAP_THUMBNAIL = 48
"""Side of a picture on the map, in pixels."""


def examine(
    run: Run | Path | str,
    *,
    data_path: str | None = None,
    network: nn.Module | None = None,
    device: str = "auto",
    progress: AnyProgress | None = None,
) -> dict[str, Any]:
    """Measure a finished run without labels and write RUN/examination/; return the content of numbers.json.

    ``data_path`` replaces the config's if the images have moved. ``network``: your own module, for a run with one;
    its starting weights are unknown, and nothing is compared with them. Raises MissingInputError if the run is not
    finished or its images are missing, and ConfigError if they are not the images it was trained on.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> numbers = sdclr.examine(run)
    >>> numbers["feature_dim"], numbers["trained"]["effective_rank"] > 1
    (32, True)
    """
    run, show = (run if isinstance(run, Run) else Run(run)).require(), progress or NoProgress()
    with run:
        config = PretrainConfig.from_yaml(run.config_path, foreign=True)
        images, class_names = sampled_images(
            run, config.data, SAMPLE, config.seed, data_path=data_path
        )
        where = resolve_device(device)
        trained = load_backbone(run.folder, network)
        before, why_not = _before_training(config, read_backbone(run.folder).described)
        views = unseen_views(images, config.views.spec(), config.seed, epoch=config.epochs)
        stills = images.stills(config.views.size)
        pixels = torch.cat([batch.cpu() for batch in stills])
        networks = {"trained": trained, **({"before": before} if before is not None else {})}
        numbers: dict[str, Any] = {}
        features: dict[str, Tensor] = {}
        for name, backbone in networks.items():
            backbone = placed_on(backbone, where)
            title = "features before training" if name == "before" else "features after training"
            task = show.add(title, total=3 * len(images), unit="images")
            measured = sample_features(backbone, pixels, views, partial(show.advance, task))
            features[name] = measured.stills
            numbers[name] = asdict(measure_without_labels(measured))
            show.finish(task)
        _write_map(run, images, class_names, pixels, features["trained"])
        return _write(run, images, views, pixels, features["trained"], numbers, why_not)


def _before_training(
    config: PretrainConfig, trained: BackboneFacts
) -> tuple[Backbone | None, str | None]:
    """The network that the run started from, or the reason why it is not available."""
    if config.backbone.name == "custom":
        return None, "the starting weights of a network of one's own are not recorded"
    try:
        with default_generators(derive(config.seed, Stream.WEIGHTS), torch.device("cpu")):
            network = trained.architecture
            backbone = build_backbone(network, trained.normalisation.channels)
            if config.weights is not None:
                _load_weights(backbone, config)
            elif config.backbone.pretrained:
                from sdclr.backbones.pretrained import load_pretrained

                load_pretrained(
                    backbone, network.name, network.width, network.stem, network.options
                )
            backbone.normalise_with(trained.normalisation.mean, trained.normalisation.std)
    except SdclrError as error:
        return None, f"the weights it started from cannot be read: {error}"
    return backbone, None


def _load_weights(backbone: Backbone, config: PretrainConfig) -> None:
    source = user_path(str(config.weights))
    if is_others(source):
        load_others(backbone.net, read_others(source), config.weights_match)
    else:
        load_weights(backbone, source)


def _write(
    run: Run,
    images: Images,
    views: Views,
    pixels: Tensor,
    features: Tensor,
    numbers: dict[str, Any],
    why_not: str | None,
) -> dict[str, Any]:
    """Write the pictures first, then numbers.json, so that every file it names exists."""
    folder = run.folder / EXAMINATION_FOLDER
    make_folder(folder)
    names = getattr(images, "paths", None) or [f"image {i}" for i in range(len(images))]
    written: dict[int, str] = {}

    def picture(row: int) -> dict[str, Any]:
        if row not in written:
            written[row] = f"image-{row:04d}.jpg"
            write_atomically(folder / written[row], _jpeg(pixels[row]))
        return {"file": written[row], "path": printable(names[row])}

    shown_views = []
    for row in np.unique(np.linspace(0, len(images) - 1, NUM_VIEWS).astype(int)).tolist():
        entry: dict[str, Any] = {"image": picture(row)}
        for branch, part in (("a", views.a), ("b", views.b)):
            name = f"view-{row:04d}-{branch}.jpg"
            write_atomically(
                folder / name, _jpeg((part[row] * 255).round().clamp(0, 255).to(torch.uint8))
            )
            entry[branch] = name
        shown_views.append(entry)
    rows = torch.from_numpy(
        np.unique(np.linspace(0, len(images) - 1, NUM_QUERIES).astype(np.int64))
    )
    positions, similarities = nearest(features, rows, NUM_NEIGHBOURS)
    gallery = []
    for row, others, values in zip(
        rows.tolist(), positions.tolist(), similarities.tolist(), strict=True
    ):
        neighbours = [
            picture(other) | {"similarity": value}
            for other, value in zip(others, values, strict=True)
        ]
        gallery.append({"image": picture(row), "neighbours": neighbours})
    content = {
        "backbone": run.backbone_identity(),
        "num_images": len(images),
        "feature_dim": features.shape[1],
        "chance_to_find": 1 / len(images),
        **numbers,
        "why_no_comparison": why_not,
        "views": shown_views,
        "gallery": gallery,
    }
    run.write_json(f"{EXAMINATION_FOLDER}/numbers.json", content)
    return content


def _write_map(
    run: Run, images: Images, class_names: Sequence[str], pixels: Tensor, features: Tensor
) -> None:
    """Place each image of the sample on the two largest principal axes, as in the map of mined images."""
    make_folder(run.folder / EXAMINATION_FOLDER)
    entries: list[dict[str, Any]] = []
    explained = 0.0
    try:
        places, variances = principal_components(features, None)
        explained = float(variances[:2].sum() / variances.sum())
    except DataError:  # all features coincide, so the map has no extent
        places = torch.zeros(0, 2)
    for row, place in enumerate(places[:, :2].tolist()):
        entry: dict[str, Any] = {"path": printable(images.names[row])}
        if images.labels is not None and class_names:
            entry["label"] = class_names[int(images.labels[row])]
        x, y = (*place, 0.0)[:2]
        small = base64.b64encode(_jpeg(pixels[row], MAP_THUMBNAIL)).decode("ascii")
        entries.append(entry | {"x": x, "y": y, "picture": small})
    content = {
        "backbone": run.backbone_identity(),
        "num_images": len(images),
        "explained": min(explained, 1.0),
        "images": entries,
    }
    run.write_json(MAP_FILE, content)


def _jpeg(pixels: Tensor, longest: int = THUMBNAIL) -> bytes:
    """uint8 [C, S, S] as a small picture; enlarged by integer factors, so that pixels stay sharp."""
    picture = Image.fromarray(in_colours(pixels.permute(1, 2, 0).contiguous().numpy()))
    if picture.width < longest:
        side = picture.width * -(-longest // picture.width)
        picture = picture.resize((side, side), Image.Resampling.NEAREST)
    else:
        picture.thumbnail((longest, longest))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return content.getvalue()
