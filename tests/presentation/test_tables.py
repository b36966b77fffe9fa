"""Tables: fractions become percent once, numbers are never cut, a comparison claims only what its interval shows."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from sdclr.mean_std import MeanStd
from sdclr.presentation.report import COLUMNS, Comparison, Fact, Report, Row
from sdclr.presentation.tables import cell, comparison_text, render_terminal, to_csv, to_markdown

ARMS = ("SimCLR", "SDCLR (prune_ratio 0.9)")
VALUES = {
    column.key: MeanStd(0.6 + 0.0123 * number, 0.011, 3) for number, column in enumerate(COLUMNS)
}
INTERVALS = {
    "all": (0.008, -0.012, 0.028),
    "few": (0.021, 0.004, 0.038),
    "group_std": (-0.012, -0.02, -0.004),
}


def report(arms: tuple[str, ...] = ARMS, n: int = 3) -> Report:
    values = {key: MeanStd(value.mean, value.std, n) for key, value in VALUES.items()}
    return Report(
        title="SimCLR against SDCLR",
        description="Two arms.",
        group_convention="thirds",
        dataset="digits",
        protocol="cached",
        chance=0.1,
        arms=arms,
        probes={"linear": "Linear probe", "few_shot": "Few-shot probe"},
        rows=[Row(probe, arm, n, values) for probe in ("linear", "few_shot") for arm in arms],
        comparisons=[
            Comparison("linear", key, arms[0], arms[1], 3, INTERVALS[key]) for key in INTERVALS
        ],
        facts=[Fact("prune ratio", ["-", "0.9"]), Fact("hardware", ["CPU: many words " * 3] * 2)],
        probe_details={},
        bars=[],
        curves=[],
        class_names=[],
        splits=[],
        runs=[],
        versions={},
    )


def printed(width: int, shown: Report | None = None) -> str:
    stream = io.StringIO()
    render_terminal(shown or report(), Console(file=stream, width=width))
    return stream.getvalue()


def test_a_cell_is_percent_with_its_spread() -> None:
    assert cell(MeanStd(0.6123, 0.011, 3)) == "61.23 ± 1.10"
    assert cell(MeanStd(0.6123, 0.0, 1)) == "61.23"
    assert cell(MeanStd(math.nan, math.nan, 3)) == "-"


@pytest.mark.parametrize(
    ("measure", "interval", "n", "expected"),
    [
        (
            "all",
            (0.008, -0.012, 0.028),
            3,
            "All: no difference shown: +0.80 [-1.20, 2.80] points (95 % t-interval, n = 3",
        ),
        (
            "all",
            (0.021, 0.004, 0.038),
            3,
            "All: SDCLR higher by 2.10 [0.40, 3.80] points (95 % t-interval, n = 3",
        ),
        (
            "few",
            (-0.021, -0.038, -0.004),
            5,
            "Few: SDCLR lower by 2.10 [0.40, 3.80] points (95 % t-interval, n = 5",
        ),
        (
            "group_std",
            (-0.012, -0.02, -0.004),
            3,
            "Std lower by 1.20 [0.40, 2.00] points with SDCLR (lower is better;",
        ),
        (
            "group_std",
            (0.01, -0.02, 0.04),
            3,
            "Std: no difference shown: +1.00 [-2.00, 4.00] points (lower is better;",
        ),
        ("all", None, 1, "All: +2.50 points on one split: no interval can be given"),
        ("all", None, 2, "All: the same difference, +2.50 points, on all 2 splits: no interval"),
        ("all", None, 0, "All: no split in common: nothing to compare"),
        ("all", (1e-9, 1e-10, 2e-9), 2, "All: no difference shown: +0.00 [0.00, 0.00] points"),
        ("all", (-1e-9, -2e-9, 3e-9), 2, "All: no difference shown: +0.00 [0.00, 0.00] points"),
    ],
)
def test_a_comparison_claims_only_what_its_interval_shows(
    measure: str, interval: tuple[float, float, float] | None, n: int, expected: str
) -> None:
    single = 0.025 if n and interval is None else None
    text = comparison_text(Comparison("linear", measure, "SimCLR", "SDCLR", n, interval, single))
    assert text.startswith(expected)
    assert ("n = " in text) == (interval is not None)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_numbers_are_never_cut_on_a_terminal(width: int) -> None:
    text = printed(width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    missing = (
        text.partition("Not shown at this width: ")[2]
        .partition(".\n")[0]
        .replace("\n", " ")
        .split(", ")
    )
    shown = [column for column in COLUMNS if column.header not in missing]
    assert len(shown) >= 3
    for column in shown:
        assert cell(VALUES[column.key]) in text


def test_a_wide_terminal_shows_every_column_and_a_narrow_one_says_what_is_missing() -> None:
    assert "Not shown" not in printed(120)
    narrow = printed(80, report(arms=("SimCLR", "SDCLR")))
    assert "Not shown at this width: Gap, Worst class." in narrow
    assert "lower is better" in " ".join(narrow.split())


def test_a_label_is_no_markup() -> None:
    assert "SDCLR [red]x[/red] (norms own)" in printed(
        160, report(arms=("SimCLR", "SDCLR [red]x[/red] (norms own)"))
    )


def test_markdown_has_every_column_and_no_html() -> None:
    text = to_markdown(report(arms=("SimCLR", "SDCLR <script>|x")))
    header, rule, first = text.splitlines()[4:7]
    assert (
        header
        == "| Probe | Arm | n | Many | Medium | Few | Std (lower is better) | Gap | Worst class | All |"
    )
    assert rule.count("---:") == 8
    assert first.startswith("| Linear probe | SimCLR | 3 | 60.00 ± 1.10 | 61.23 ± 1.10 |")
    assert "SDCLR &lt;script>\\|x" in text
    assert "<script>" not in text
    assert "- All: no difference shown: +0.80" in text
    assert "| prune ratio (differs) | - | 0.9 |" in text


def test_csv_holds_fractions_in_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(report()))))
    assert [(row["probe"], row["arm"]) for row in rows] == [
        (p, a) for p in ("linear", "few_shot") for a in ARMS
    ]
    assert float(rows[0]["medium_mean"]) == VALUES["medium"].mean
    assert rows[0]["n"] == "3"
    assert rows[0]["protocol"] == "cached"
    assert rows[0]["all_std"] == "0.011"


def test_csv_leaves_the_spread_of_one_split_empty() -> None:
    row = next(csv.DictReader(io.StringIO(to_csv(report(n=1)))))
    assert row["all_std"] == ""
    assert row["all_mean"] != ""


@pytest.mark.parametrize(
    "detail",
    [
        "C = 1, validation accuracy 0.7333",
        "cross-validated: 5 folds, accuracy 28.6 to 71.4 % on them",
    ],
)
def test_where_a_plain_accuracy_stands_beside_all_their_difference_is_said(detail: str) -> None:
    both = replace(report(), probe_details={"linear": detail})
    for text in (printed(80, both), to_markdown(both)):
        flat = " ".join(text.split())
        assert f"Linear probe: {detail}" in flat
        assert (
            "All is the mean over the classes; the accuracies of folds and of validation count every image"
            in flat
        )


def test_where_no_plain_accuracy_is_shown_nothing_is_said_of_it() -> None:
    alone = replace(report(), probe_details={"knn": "k = 10, cosine"})
    assert "count every image" not in printed(80, alone)


def test_a_probe_is_shown_in_the_order_of_the_report_whatever_its_name() -> None:
    values = report().rows[0].values
    rows = [Row("mine", "SimCLR", 3, values), Row("linear", "SimCLR", 3, values)]
    shown = replace(
        report(), probes={"linear": "Linear probe", "mine": "My probe"}, rows=rows, comparisons=[]
    )
    for text in (printed(120, shown), to_markdown(shown)):
        assert text.index("Linear probe") < text.index("My probe")
    assert [line.split(",")[2] for line in to_csv(shown).splitlines()[1:]] == ["linear", "mine"]
