"""Provoked failures are named by their cause, healthy runs raise no alarm (benchmarks/health_campaign.py)."""

from __future__ import annotations

from pathlib import Path

import health_campaign
import pytest
from health_campaign import Case, failures, healthy, see

from sdclr import pretrain
from sdclr.evaluation.alarms import CAUSES

pytestmark = pytest.mark.journeys


def name_of(case: Case) -> str:
    return case.name


def test_every_cause_is_provoked_at_two_severities() -> None:
    provoked = [case.expected for case in failures()]
    assert {cause: provoked.count(cause) for cause in CAUSES} == dict.fromkeys(CAUSES, 2)


MILD, STRONG = failures()[::2], failures()[1::2]


@pytest.mark.parametrize("case", MILD[::2], ids=name_of)
def test_a_mild_failure_is_named_by_its_cause(case: Case, tmp_path: Path) -> None:
    seen = see(case, tmp_path)
    assert seen.right, seen.by_epoch


@pytest.mark.parametrize("case", healthy(100)[:46:45], ids=name_of)
def test_a_healthy_run_raises_no_alarm(case: Case, tmp_path: Path) -> None:
    seen = see(case, tmp_path)
    assert seen.right, seen.by_epoch


@pytest.mark.slow
@pytest.mark.parametrize("case", [*MILD[1::2], *STRONG, *healthy(100)], ids=name_of)
def test_the_rest_of_the_campaign(case: Case, tmp_path: Path) -> None:
    seen = see(case, tmp_path)
    assert seen.right, seen.by_epoch
    assert case.expected is None or not seen.diverged


def test_a_diverged_run_is_no_healthy_one(tmp_path: Path) -> None:
    case = Case("too fast", lambda _: health_campaign.config("optimizer.learning_rate=1e12"))
    seen = see(case, tmp_path)
    assert seen.diverged


def test_an_alarm_is_a_warning_with_the_number_and_the_run_goes_on(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="temperature 100, usual are 0.05 to 1; set method.temp"):
        run = pretrain(health_campaign.config("method.temperature=100"), tmp_path / "x")
    assert [line["alarm_temperature"] for line in run.metrics()] == [1.0, 1.0]
    assert run.backbone_path.is_file()
