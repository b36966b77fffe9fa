"""JOB: a foreign checkpoint -> our backbone.safetensors, with a strict account of every tensor."""

from __future__ import annotations

from pathlib import Path

from sdclr.backbones.authors_checkpoint import AuthorsCheckpoint, Branch, read_authors_checkpoint
from sdclr.backbones.backbone import measure_feature_dim
from sdclr.backbones.weights import save_backbone
from sdclr.errors import ConfigError
from sdclr.storage.output_files import output_file, require_free, require_place


def convert(
    source: Path | str, out: Path | str, branch: Branch = "target", *, overwrite: bool = False
) -> AuthorsCheckpoint:
    """Write the backbone of an authors' checkpoint to ``out``, for load_backbone and ``--weights``.

    ``branch`` chooses the norms of a file with two sets: target (dense) or competitor (pruned). The weights are the
    dense ones either way: the authors' files contain no masks. Raises CheckpointError without writing anything. Raises
    ConfigError if ``out`` exists, unless ``overwrite``, and always for a run's own backbone.

    >>> import sdclr
    >>> found = sdclr.convert("model_2000.pt", "theirs.safetensors", overwrite=True)
    >>> sdclr.load_backbone("theirs.safetensors").feature_dim
    64
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise ConfigError(f"the output must be named *.safetensors, got {out}.")
    if out.name == "backbone.safetensors" and (out.parent / "config.yaml").exists():
        raise ConfigError(
            f"{out} is the backbone that the run in {out.parent} has trained; choose another output."
        )
    require_place(out, "output")
    require_free(out, overwrite=overwrite, option="output")
    checkpoint = read_authors_checkpoint(source, branch)
    size = 32 if checkpoint.architecture.stem == "small" else 224
    facts = {
        "feature_dim": measure_feature_dim(checkpoint.backbone, size),
        "image_size": size,
        "recipe": "converted",
        "source": Path(source).name,
        "branch": branch,
        "epochs": checkpoint.epoch,
        "data_fingerprint": None,
    }
    # nothing is written for a rejected file
    with output_file(out, overwrite=overwrite, option="output"):
        save_backbone(out, checkpoint.backbone, checkpoint.architecture.to_dict(), facts)
    return checkpoint
