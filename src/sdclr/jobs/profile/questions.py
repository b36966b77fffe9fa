"""questions.csv: pairs of images that only a person can judge to be of one kind or not, and the answers.

N images of one collection. A pair drawn at random from another collection is not a random pair of this one, but its
answer still shows at which distance images are alike.
"""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sdclr.data.sources.tables import read_mark, read_table
from sdclr.errors import DataError
from sdclr.evaluation.rarity.modes import Answer, Covering, questions
from sdclr.run.files import PROFILE_FILE
from sdclr.safe_text import counted, csv_row, shown
from sdclr.storage.documents import read_json_file
from sdclr.storage.durable_files import write_atomically

GIVEN = "given"
"""The kind of a pair that was not drawn from this collection."""
_FRUITLESS = 20
"""Rounds of drawing without a new pair after which all are assumed to be known."""
_STRIDE = 7919
"""Distance between the seeds of two rounds, each of which uses many."""


class Question(NamedTuple):
    """Two rows of the collection, how the pair was drawn (random, near or given), and the answer."""

    a: int
    b: int
    kind: str
    same: bool | None

    @property
    def pair(self) -> frozenset[int]:
        return frozenset((self.a, self.b))


class Questions:
    """The pairs of a collection in their order, no pair twice."""

    def __init__(self, names: Sequence[str], questions: Sequence[Question] = ()) -> None:
        self.names = names
        self.items = list(questions)

    def answers(self) -> list[Answer]:
        """All given answers."""
        return [Answer(q.a, q.b, q.same) for q in self.items if q.same is not None]

    def random_answers(self) -> list[Answer]:
        """The answers for pairs drawn at random from this collection."""
        known = (q for q in self.items if q.kind == "random")
        return [Answer(q.a, q.b, q.same) for q in known if q.same is not None]

    @property
    def num_open(self) -> int:
        return sum(question.same is None for question in self.items)

    def draw(self, covering: Covering, number: int) -> int:
        """Add up to ``number`` new pairs; return how many were added."""
        known = {question.pair for question in self.items}
        begun, fruitless, seed = len(known), 0, 0
        while len(known) - begun < number and fruitless < _FRUITLESS:
            before = len(known)
            for a, b, kind in questions(covering, len(known) + number, seed):
                if len(known) - begun == number:
                    break
                if frozenset((a, b)) not in known:
                    known.add(frozenset((a, b)))
                    self.items.append(Question(a, b, kind, None))
            fruitless = fruitless + 1 if len(known) == before else 0
            seed += _STRIDE
        return len(known) - begun

    def add(self, given: Sequence[Question]) -> None:
        """Add answers from another file: they replace those of pairs listed here, other pairs are appended."""
        places = {question.pair: place for place, question in enumerate(self.items)}
        changed = 0
        for one in given:
            if one.pair not in places:
                places[one.pair] = len(self.items)
                self.items.append(one._replace(kind=GIVEN))
                continue
            ours = self.items[places[one.pair]]
            if one.same is not None:
                changed += ours.same is not None and ours.same != one.same
                self.items[places[one.pair]] = ours._replace(same=one.same)
        if changed:
            warnings.warn(
                f"{counted(changed, 'pair')} had another answer before; that of the file counts.",
                stacklevel=3,
            )

    def write(self, path: Path) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["a", "b", "kind", "same", "collection"])
        mark = _mark(self.names)
        for a, b, kind, same in self.items:
            answer = "" if same is None else "yes" if same else "no"
            drawn_from = "" if kind == GIVEN else mark
            writer.writerow(csv_row([self.names[a], self.names[b], kind, answer, drawn_from]))
        write_atomically(path, text.getvalue())


def own_questions(path: Path, names: Sequence[str]) -> Questions:
    """The questions of an earlier call on the same folder, whose collection may have changed since.

    Answers are kept if both images still exist; other pairs, and open ones of another collection, are left out.
    """
    if not path.is_file():
        return Questions(names)
    unmarked = GIVEN if _num_images_before(path.parent) != len(names) else ""
    found, num_gone = _read(path, names, unmarked)
    if num_gone:
        warnings.warn(
            f"{counted(num_gone, 'answer')} in {shown(path)} are about images that are no longer mined, "
            "and are left out.",
            stacklevel=3,
        )
    return Questions(names, found)


def given_answers(path: Path, names: Sequence[str]) -> list[Question]:
    """The answers in a user's file. Raises DataError for an unknown image, and for an answer other than yes or no."""
    return _read(path, names, None)[0]


def _num_images_before(folder: Path) -> int | None:
    """The number of images in the last profile of a mine folder; None if there is none."""
    try:
        return int(read_json_file(folder / PROFILE_FILE)["num_images"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _read(path: Path, names: Sequence[str], unmarked: str | None) -> tuple[list[Question], int]:
    """The pairs, and how many answers are about unknown images, which in a user's file is an error.

    ``unmarked``: None for a user's file. Otherwise the kind of pairs in a file of an earlier version, which does not
    record the collection they were drawn from, or empty if that is taken to be this one.
    """
    strict = unmarked is None
    row_of = {name: row for row, name in enumerate(names)}
    table = read_table(path, known=("a", "b", "same"))
    if not {"a", "b", "same"} <= set(table.columns):
        raise DataError(f"{shown(path)} needs the columns a, b and same; it has {table.names()}.")
    blank = [""] * len(table.lines)
    kinds, marks = (table.columns.get(name, blank) for name in ("kind", "collection"))
    mark, num_gone = _mark(names), 0
    found: dict[frozenset[int], Question] = {}
    for line, answer in enumerate(table.columns["same"]):
        same = read_mark(answer, table.where(line), "same", ("same", "different"))
        pair = [table.columns[side][line] for side in ("a", "b")]
        if lost := [name for name in pair if name not in row_of]:
            if strict:
                raise DataError(
                    f"{table.where(line)}: {shown(lost[0])} is not an image of this collection."
                )
            num_gone += same is not None
            continue
        kind = kinds[line] or GIVEN
        if "collection" not in table.columns:
            kind = unmarked or kind
        elif marks[line] not in ("", mark):
            if same is None:
                continue
            kind = GIVEN
        one = Question(row_of[pair[0]], row_of[pair[1]], kind, same)
        if one.a == one.b:
            raise DataError(f"{table.where(line)}: {shown(pair[0])} is compared with itself.")
        before = found.get(one.pair)
        if before is None or before.same is None:
            found[one.pair] = one if before is None else before._replace(same=same)
        elif same not in (None, before.same):
            raise DataError(
                f"{table.where(line)}: {shown(pair[0])} and {shown(pair[1])} are called the same and different. "
                "Leave one of the rows."
            )
    return list(found.values()), num_gone


def _mark(names: Sequence[str]) -> str:
    """8 hex digits, equal for collections with the same names."""
    return hashlib.sha256("\n".join(names).encode(errors="surrogatepass")).hexdigest()[:8]
