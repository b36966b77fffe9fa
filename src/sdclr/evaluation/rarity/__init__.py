"""How rare each image of a collection is, without labels: scores, junk, near-duplicates.

N images, F feature dim. Every score is float [N] on the CPU, and HIGHER means rarer. ``SCORES`` is
the table of all scores, ``DEFAULT`` names the one that RareBench chose (docs/rarebench.md),
``DEFAULT_ORDER`` the order in which a sheet shows images. Opens no file, trains nothing.
"""

from typing import TYPE_CHECKING

from sdclr.lazy_names import names_from

if TYPE_CHECKING:
    from sdclr.evaluation.rarity.duplicates import fold as fold
    from sdclr.evaluation.rarity.duplicates import near_duplicates as near_duplicates
    from sdclr.evaluation.rarity.duplicates import perceptual_hashes as perceptual_hashes
    from sdclr.evaluation.rarity.evidence import Evidence as Evidence
    from sdclr.evaluation.rarity.junk import JunkMeasures as JunkMeasures
    from sdclr.evaluation.rarity.junk import junk_flags as junk_flags
    from sdclr.evaluation.rarity.junk import measure_junk as measure_junk
    from sdclr.evaluation.rarity.neighbours import Neighbours as Neighbours
    from sdclr.evaluation.rarity.neighbours import merged as merged
    from sdclr.evaluation.rarity.neighbours import nearest as nearest
    from sdclr.evaluation.rarity.neighbours import nearest_in as nearest_in
    from sdclr.evaluation.rarity.order import rarest_first as rarest_first
    from sdclr.evaluation.rarity.preparation import unit_rows as unit_rows
    from sdclr.evaluation.rarity.preparation import whitened as whitened
    from sdclr.evaluation.rarity.table import DEFAULT as DEFAULT
    from sdclr.evaluation.rarity.table import DEFAULT_ORDER as DEFAULT_ORDER
    from sdclr.evaluation.rarity.table import SCORES as SCORES
    from sdclr.evaluation.rarity.table import register_score as register_score

_HOMES = {
    "DEFAULT": "table",
    "DEFAULT_ORDER": "table",
    "Evidence": "evidence",
    "JunkMeasures": "junk",
    "Neighbours": "neighbours",
    "SCORES": "table",
    "fold": "duplicates",
    "junk_flags": "junk",
    "measure_junk": "junk",
    "merged": "neighbours",
    "near_duplicates": "duplicates",
    "nearest": "neighbours",
    "nearest_in": "neighbours",
    "perceptual_hashes": "duplicates",
    "rarest_first": "order",
    "register_score": "table",
    "unit_rows": "preparation",
    "whitened": "preparation",
}
__getattr__ = names_from(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
__all__ = sorted(_HOMES)
