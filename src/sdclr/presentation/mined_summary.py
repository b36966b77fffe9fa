"""The results of mining, in a few lines for the terminal."""

from __future__ import annotations

from sdclr.presentation.mined import MinedImages
from sdclr.safe_text import counted, shown

FIRST_GROUPS = 5


def summary(mined: MinedImages) -> str:
    """Counts, the first groups of the sheet, and remarks; safe to print."""
    num_copies, num_junk = int(mined.is_copy.sum()), int(mined.is_junk.sum())
    lines = [
        f"{counted(len(mined), 'image')} in {counted(len(mined.group_score), 'group')}, "
        f"{num_copies:,} folded as copies, {num_junk:,} set aside as suspected junk",
        *([_heading(mined)] if len(mined.sheet) else []),
    ]
    sizes = mined.group_size
    listed: dict[int, str] = {}
    for row in mined.sheet.tolist():
        listed.setdefault(int(mined.group[row]), mined.names[row])
        if len(listed) == FIRST_GROUPS:
            break
    for group, name in listed.items():
        size = int(sizes[group])
        alike = f"{size} images look alike, as" if size > 1 else "one image,"
        lines.append(f"  {mined.group_score[group]:.4g}  {alike} {shown(name, 100)}")
    lines += [shown(remark, 600) for remark in mined.remarks]
    return "\n".join([*lines, mined.quality.sentence])


def _heading(mined: MinedImages) -> str:
    """A heading for the first groups that explains the number before each of them."""
    if not mined.rarest_first:
        return "first of the order that shows many kinds early, with how far each is from those before it:"
    first = "rarest" if mined.ranks_rarity else "first"
    return f"{first} by {mined.score_name}:"
