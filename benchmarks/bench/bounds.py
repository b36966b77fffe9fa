"""Every ratio that the project promises: what over what, which direction is better, and the bound it is held to."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

Device = Literal["cpu", "cuda"]


class Work(NamedTuple):
    """What is trained; promises are made for one each."""

    backbone: str
    width: int
    size: int
    batch: int


SMALL = {"cpu": Work("resnet18", 64, 32, 128), "cuda": Work("resnet18", 64, 32, 512)}
LARGE = Work("resnet50", 64, 224, 256)


@dataclass(frozen=True)
class Bound:
    """One promise. ``value`` is None where it was not measured, and ``why`` says so."""

    key: str
    device: Device
    direction: Literal["<=", ">="]
    limit: float
    goal: float | None = None
    large: bool = False
    """Whether it is for LARGE work, not for SMALL."""
    meaning: str = ""
    value: float | None = None
    why: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.limit if self.direction == "<=" else self.value >= self.limit

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}


MEANINGS = {
    "sdclr_step_over_simclr_step": "SDCLR's step, its share of the mask refresh included / SimCLR's; lower is better",
    "end_to_end_over_reference": "the reference's seconds a step, data and host sort included / ours; higher is better",
    "end_to_end_over_reference_compute": "the reference's step on ready-made views / ours end to end; higher is better",
    "reference_step_over_sdclr_step": "the reference's step on ready-made views / ours; higher is better",
    "views_over_pil_32px": "seconds of Pillow's chain / of our views, one thread, 32 px; higher is better",
    "views_over_pil": "seconds of Pillow's chain / of our views, one thread; higher is better",
    "views_over_kornia": "seconds of kornia's chain / of our views, one thread; higher is better",
    "host_sort_over_mask_refresh": "the reference's refresh, NumPy's sort included / ours; higher is better",
    "bf16_step_over_reference_step": "the reference's fp32 step / our bf16 step, ready-made views; higher is better",
    "bf16_step_speedup": "our fp32 step / our bf16 step, ready-made views; higher is better",
    "bf16_matmul_over_fp32_matmul": "the machine's own bf16 gain: seconds of an fp32 product / a bf16 one",
    "cuda_graphs_step_speedup": "our compiled step / the same with CUDA graphs, ready-made views; higher is better",
    "cuda_graphs_end_to_end_speedup": "our compiled step end to end / the same with CUDA graphs; higher is better",
    "lightly_step_over_simclr_step": "a step of lightly's SimCLR / of ours, same backbone; higher is better",
    "views_share_of_step": "share of a step with views on the device that the views take; lower is better",
    "data_wait_share": "share of the time that steps wait for their views; lower is better",
    "reference_data_wait_share": "the same share in the reference-style run",
    "utilisation": "counted FLOPs of a step / its seconds / the matmul peak of the same run; higher is better",
    "resnet50_224px_views_per_second": "views a second, end to end, ResNet-50 at 224 px; higher is better",
}

PROMISES = (
    Bound("sdclr_step_over_simclr_step", "cpu", "<=", 1.15, 1.08),
    Bound("end_to_end_over_reference", "cpu", ">=", 1.2, 1.3),
    Bound("views_over_pil_32px", "cpu", ">=", 4),
    Bound("host_sort_over_mask_refresh", "cpu", ">=", 1.2),
    Bound("bf16_step_over_reference_step", "cpu", ">=", 2),
    Bound("sdclr_step_over_simclr_step", "cuda", "<=", 1.05),
    Bound("end_to_end_over_reference", "cuda", ">=", 10),
    Bound("end_to_end_over_reference_compute", "cuda", ">=", 3),
    Bound("views_share_of_step", "cuda", "<=", 0.03),
    Bound("views_share_of_step", "cuda", "<=", 0.05, large=True),
    Bound("data_wait_share", "cuda", "<=", 0.02),
    Bound("utilisation", "cuda", ">=", 0.25, 0.36),
    Bound("resnet50_224px_views_per_second", "cuda", ">=", 2800, 4500, large=True),
)


def judged(
    ratios: dict[str, list[float]], device: Device, work: Work, reasons: dict[str, str]
) -> list[Bound]:
    """Every promise with its value, or with the reason why there is none.

    ``ratios``: per round, of this run of ``work`` on ``device``. ``reasons``: by key, why it was not measured.
    """
    found = []
    for bound in PROMISES:
        promised = LARGE if bound.large else SMALL[bound.device]
        values, why = ratios.get(bound.key), reasons.get(bound.key, "not part of this run")
        if bound.device != device:
            values, why = (
                None,
                "no CUDA device" if bound.device == "cuda" else "this run was on CUDA",
            )
        elif work != promised:
            values, why = None, f"{promised.backbone}, {promised.size} px only"
        value = statistics.median(values) if values else None
        words = f"{MEANINGS[bound.key]}{' (ResNet-50, 224 px)' if bound.large else ''}"
        found.append(replace(bound, meaning=words, value=value, why="" if values else why))
    return found
