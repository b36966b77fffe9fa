"""Every probe keeps to the contract and appears wherever probes are shown, one from outside included."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import outside_probes
from empty_figures import draw_nothing
from probe_conformance import check_on_features, check_on_run, check_settings
from sdclr import (
    Evaluation,
    ProbeConfig,
    ProbeTask,
    Run,
    cli,
    evaluate,
    pretrain,
    recipe,
    register_probe,
)
from sdclr.errors import ConfigError
from sdclr.evaluation import sgd_probes
from sdclr.evaluation.linear_probe import ProbeSchedule, ProbeSchedules
from sdclr.evaluation.probes import (
    PROBES,
    PROTOCOL_SUMMARIES,
    PROTOCOLS,
    ProbeRow,
    Protocol,
    probes_under,
    published_probes,
)
from sdclr.jobs.report import build_paper_table, build_report, write_paper_table, write_report
from sdclr.jobs.report.arms import probe_headings, read_arms

NAMES = [*PROBES, "ridge"]
DOCS = Path(__file__).parents[2] / "docs"
OWN_MODULE = '''
import torch

class Centroid:
    """The class whose mean is nearest."""
    name = "centroid"
    display_name = "Nearest class mean"

    def fit(self, task):
        labels = torch.from_numpy(task.labels)
        self.means = torch.stack([task.features[labels == c].mean(dim=0) for c in range(task.num_classes)])

    def predict(self, features):
        return torch.cdist(features, self.means).argmin(dim=1)
'''


TINY = [
    "backbone.width=2",
    "views.size=8",
    "epochs=1",
    "batch_size=200",
    "health_every_epochs=0",
]


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is forgotten after it; the paper's schedules are short."""
    short = ProbeSchedule(epochs=2, milestones=(2,), evaluate_every=1)
    monkeypatch.setitem(sgd_probes.SCHEDULES, "cifar", ProbeSchedules(linear=short, few_shot=short))
    with PROBES.temporarily():
        register_probe(outside_probes.Ridge)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(
        recipe("digits_simclr").with_overrides(TINY), tmp_path_factory.mktemp("conformance") / "run"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_probe_on_features_is_deterministic_and_predicts_each_image_for_itself(name: str) -> None:
    check_on_features(PROBES[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_a_probe_come_back_from_yaml(name: str, tmp_path: Path) -> None:
    check_settings(PROBES[name], tmp_path)


@pytest.mark.journeys
@pytest.mark.parametrize("name", NAMES)
def test_a_probe_measures_every_class_under_each_of_its_protocols(name: str, run: Run) -> None:
    for protocol in PROBES[name].fitters:
        check_on_run(PROBES[name], run, protocol)  # type: ignore[arg-type]


def shown_everywhere(run: Run, protocol: str) -> Iterator[tuple[str, str]]:
    """(where, text) of everything that shows the probes of a protocol."""
    # the page takes seconds; one protocol stands for all
    pages = ("html",) if protocol == "cached" else ()
    for kind in ("terminal", "markdown", "csv", "json", *pages):
        stream, out = io.StringIO(), run.folder / f"shown.{kind}"
        console = Console(file=stream, width=200)
        write_report(
            [run.folder],
            {kind},
            None if kind == "terminal" else out,
            protocol=protocol,
            console=console,
            overwrite=True,
        )
        yield kind, stream.getvalue() if kind == "terminal" else out.read_text()
    for kind in ("terminal", "markdown", "csv", "latex") if published_probes(protocol) else ():
        stream, out = io.StringIO(), run.folder / f"paper.{kind}"
        console = Console(file=stream, width=200)
        write_paper_table(
            [run.folder],
            {kind},
            None if kind == "terminal" else out,
            protocol=protocol,
            console=console,
            overwrite=True,
        )
        yield f"paper, {kind}", stream.getvalue() if kind == "terminal" else out.read_text()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that every probe of the table was measured on, one from outside included."""
    run = pretrain(
        recipe("digits_simclr").with_overrides(TINY), tmp_path_factory.mktemp("measured") / "run"
    )
    with PROBES.temporarily():
        register_probe(outside_probes.Ridge)
        for protocol in PROTOCOLS:
            evaluate(run, protocol=protocol)
    return run


@pytest.fixture(scope="module")
def everywhere(measured: Run) -> dict[str, dict[str, str]]:
    """Protocol -> where its probes are shown -> text."""
    with PROBES.temporarily(), pytest.MonkeyPatch.context() as monkeypatch:
        draw_nothing(monkeypatch)
        register_probe(outside_probes.Ridge)
        return {protocol: dict(shown_everywhere(measured, protocol)) for protocol in PROTOCOLS}


def expected(where: str, row: ProbeRow) -> str:
    """Tables have headings; lines of CSV have names."""
    return f",{row.name}," if "csv" in where else row.display_name


@pytest.mark.journeys
@pytest.mark.parametrize("name", NAMES)
def test_a_probe_is_in_every_table_in_json_in_the_help_and_in_the_docs(
    name: str, measured: Run, everywhere: dict[str, dict[str, str]]
) -> None:
    row = PROBES[name]
    for protocol in PROTOCOLS:
        content = json.loads(measured.evaluation_path(protocol).read_text())
        for where, text in everywhere[protocol].items():
            shown = expected(where, row) in text
            assert shown == (protocol in row.fitters), (protocol, where)
        assert (name in content["probes"]) == (protocol in row.fitters)
        if protocol in row.fitters:
            assert content["probes"][name]["display_name"] == row.display_name
    help_text = " ".join(
        CliRunner().invoke(cli.app, ["evaluate", "--help"], env={"COLUMNS": "4000"}).output.split()
    )
    assert f"{name}, {row.summary}" in help_text
    docs = (DOCS / "extending.md").read_text()
    assert f"| `{name}` | {row.display_name} |" in docs or row.origin, (
        "the table of probes in docs/extending.md"
    )


@pytest.mark.journeys
@pytest.mark.usefixtures("light_figures")  # as everywhere is drawn
def test_a_probe_whose_code_is_not_at_hand_is_shown_by_its_recorded_heading(
    measured: Run, everywhere: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(PROBES._rows, "ridge")
    report = build_report([measured.folder], protocol="cached")
    assert list(report.probes.items())[-1] == ("ridge", "Ridge classifier")
    assert [row.values["all"].mean for row in report.rows if row.probe == "ridge"] == [
        Evaluation.load(measured.evaluation_path("cached")).balancedness("ridge").all
    ]
    assert dict(shown_everywhere(measured, "cached")) == everywhere["cached"], (
        "nothing is lost where the code is not at hand"
    )


@pytest.mark.journeys
def test_the_paper_table_has_the_published_probes_first(measured: Run) -> None:
    assert tuple(build_paper_table([measured.folder], protocol="cached").probes) == (
        *published_probes(),
        "knn",
        "ridge",
    )


@pytest.mark.parametrize("probe", outside_probes.REFUSED, ids=lambda probe: probe.name)
def test_a_probe_that_breaks_the_contract_is_an_error_that_names_it(probe: type, run: Run) -> None:
    register_probe(probe)
    before = run.backbone_path.read_bytes()
    kept = (
        run.evaluation_path("cached").read_bytes()
        if run.evaluation_path("cached").exists()
        else None
    )
    with pytest.raises(ConfigError, match=outside_probes.REFUSED[probe]) as caught:
        evaluate(run, probes=[probe.name])  # type: ignore[attr-defined]
    assert f"outside_probes:{probe.__name__}" in str(caught.value)
    assert run.backbone_path.read_bytes() == before
    if kept is not None:
        assert run.evaluation_path("cached").read_bytes() == kept, "nothing is recorded"


def test_a_probe_that_changes_the_network_is_an_error(run: Run) -> None:
    register_probe(outside_probes.ChangesTheNetwork)
    with pytest.raises(ConfigError, match="it changed the network"):
        evaluate(run, probes=["changes_the_network"])


@pytest.mark.parametrize(
    ("probe", "problem"),
    [
        (outside_probes.IsDrawnAnew, "not deterministic"),
        (outside_probes.LooksAtTheOthers, "depends on the other test images"),
        (outside_probes.ChangesTheFeatures, "changed features"),
    ],
)
def test_the_suite_rejects_a_planted_probe(probe: type, problem: str) -> None:
    row = register_probe(probe)
    with pytest.raises(AssertionError, match=problem):
        check_on_features(row)


def test_the_suite_rejects_settings_that_do_not_come_back(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_settings(register_probe(outside_probes.DoublesItsSetting), tmp_path)


def test_the_suite_rejects_a_probe_that_is_drawn_anew_on_a_run(run: Run) -> None:
    row = register_probe(outside_probes.IsDrawnAnew)
    with pytest.raises(AssertionError, match="not deterministic"):
        check_on_run(row, run, "cached")


def test_what_one_probe_measured_is_kept_where_the_next_one_fails(tmp_path: Path, run: Run) -> None:
    run.evaluation_path("cached").unlink(missing_ok=True)
    register_probe(outside_probes.Fails)
    with pytest.raises(ConfigError, match="singular matrix"):
        evaluate(run, probes=["knn", "fails"])
    assert list(Evaluation.load(run.evaluation_path("cached")).probes) == ["knn"]


class NoDefault(ProbeConfig):
    alpha: float


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"name": None}, "it needs name, a text"),
        ({"display_name": 3}, "it needs display_name, a text"),
        ({"fit": None}, r"it has no fit\(\)"),
        ({"predict": None}, r"it has no predict\(\)"),
        ({"subset": "test"}, "subset must be one of train, few_shot, long_tail, got 'test'"),
        ({"needs": "labels"}, "needs must be one of features, crops, got 'labels'"),
        ({"protocols": ("linear",)}, "protocols must be a tuple of some of cached, sdclr, bcl, ts"),
        ({"protocols": ()}, "protocols must be a tuple of some of cached, sdclr, bcl, ts"),
        ({"protocols": "cached"}, "protocols must be a tuple of some of cached, sdclr, bcl, ts"),
        ({"Config": dict}, "Config must be a subclass of ProbeConfig"),
        ({"Config": NoDefault}, "every field of Config needs a default: alpha is missing"),
        ({"name": "knn"}, "there is a probe 'knn' already, from sdclr itself"),
        ({"name": "Ridge"}, "a probe cannot be called 'Ridge'"),
    ],
)
def test_what_is_no_probe_is_refused_when_it_is_registered(
    attributes: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        register_probe(type("Other", (outside_probes.Ridge,), attributes))
    assert "Other" not in {row.origin.rpartition(":")[2] for row in PROBES.values()}


class CannotBeBuilt(outside_probes.Ridge):
    name = "cannot_be_built"

    def __init__(self, config: outside_probes.RidgeConfig) -> None:
        raise OSError("no licence")


class HasNoDetail(outside_probes.Ridge):
    name = "has_no_detail"

    @property
    def detail(self) -> str:
        raise KeyError("alpha")


@pytest.mark.parametrize("probe", [CannotBeBuilt, HasNoDetail])
def test_a_probe_that_cannot_be_built_or_described_is_an_error_that_names_it(
    probe: type, run: Run
) -> None:
    row = register_probe(probe)
    with pytest.raises(
        ConfigError, match=rf"probe {row.name} \(.*:{probe.__name__}\) failed: (OSError|KeyError)"
    ):
        evaluate(run, probes=[row.name])


class NeedsCrops(outside_probes.Ridge):
    name = "needs_crops"
    needs = "crops"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run without a test set, and labels for its images."""
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    np.savez(folder / "d.npz", images=rng.integers(0, 256, (60, 8, 8), dtype=np.uint8))
    labels = folder / "labels.csv"
    labels.write_text(
        "path,label\n" + "".join(f"{position},class-{position % 3}\n" for position in range(60))
    )
    tiny = [
        "backbone.width=2",
        "views.size=8",
        "epochs=1",
        "batch_size=20",
        "data.name=arrays",
        "data.subset=all",
    ]
    config = (
        recipe("digits_simclr")
        .with_overrides(tiny)
        .with_values({"data.path": str(folder / "d.npz")})
    )
    return pretrain(config, folder / "run"), labels


def test_without_a_test_set_probes_on_crops_are_refused_or_left_out_with_a_warning(
    own: tuple[Run, Path],
) -> None:
    run, labels = own
    register_probe(NeedsCrops)
    with pytest.raises(
        ConfigError,
        match="probe needs_crops learns from random crops and needs a labelled test set",
    ):
        evaluate(run, labels=labels, probes=["knn", "needs_crops"])
    assert not run.evaluation_path("cached").exists(), "before any work"
    with pytest.warns(UserWarning, match="needs_crops is left out: it learns from random crops"):
        evaluation = evaluate(run, labels=labels)
    assert list(evaluation.probes) == [*probes_under("cached")][:-1]
    assert evaluation.probe("ridge").detail is not None
    assert str(evaluation.probe("ridge").detail).endswith("% on them; alpha = 1")


@pytest.mark.parametrize(
    "probe", [outside_probes.PlainAccuracy, outside_probes.Scores, outside_probes.Fails]
)
def test_without_a_test_set_a_probe_that_breaks_the_contract_is_named_too(
    own: tuple[Run, Path], probe: type
) -> None:
    run, labels = own
    row = register_probe(probe)
    with pytest.raises(
        ConfigError, match=rf"probe {row.name} \(outside_probes:.*({outside_probes.REFUSED[probe]})"
    ):
        evaluate(run, labels=labels, probes=[row.name])


class TrainedByGradients:
    """A linear layer and its gradients."""

    name = "trained_by_gradients"
    display_name = "Trained by gradients"

    def fit(self, task: ProbeTask) -> None:
        self.layer = nn.Linear(task.features.shape[1], task.num_classes)
        for parameter in self.layer.parameters():
            nn.init.zeros_(parameter)
        F.cross_entropy(self.layer(task.features), torch.from_numpy(task.labels)).backward()

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features).argmax(dim=1)


def test_a_probe_may_be_trained_by_gradients_on_the_features(run: Run) -> None:
    register_probe(TrainedByGradients)
    assert "trained_by_gradients" in evaluate(run, probes=["trained_by_gradients"]).probes


def test_an_instance_is_no_probe() -> None:
    with pytest.raises(ConfigError, match="it must be a class, got RidgeConfig"):
        register_probe(outside_probes.RidgeConfig())  # type: ignore[arg-type]


def test_a_probe_is_asked_for_under_a_protocol_that_it_has(run: Run) -> None:
    with pytest.raises(
        ConfigError, match="probe ridge is not defined under protocol sdclr, only under cached"
    ):
        evaluate(run, protocol="sdclr", probes=["ridge"])
    assert "ridge" not in evaluate(run, protocol="sdclr").probes, "all that the protocol has"


def sdclr(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["sdclr", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """my_probes.py in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_probes.py").write_text(OWN_MODULE)
    yield tmp_path / "my_probes.py"
    sys.modules.pop("my_probes", None)


def test_a_probe_named_on_the_command_line_is_measured_and_later_shown_without_its_code(
    own_module: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # one protocol, so that a report need not be told which
    for other in set(PROTOCOLS) - {"cached"}:
        run.evaluation_path(other).unlink(missing_ok=True)
    assert sdclr(monkeypatch, "evaluate", run.folder, "--probes", "knn,my_probes:Centroid") == 0
    assert "Nearest class mean" in capsys.readouterr().out
    del PROBES._rows["centroid"]  # as in a new process
    del sys.modules["my_probes"]
    own_module.write_text("raise SystemExit('a file of a run must import nothing')\n")
    for arguments in (
        ["report", run.folder, "--format", "terminal"],
        ["evaluate", run.folder, "--probes", "knn"],
    ):
        assert sdclr(monkeypatch, *arguments) == 0
        assert "Nearest class mean" in capsys.readouterr().out
    assert sdclr(monkeypatch, "status", run.folder) == 0
    assert sdclr(monkeypatch, "report", run.folder, "--json") == 0
    assert (
        json.loads(capsys.readouterr().out.splitlines()[-1])["probes"]["centroid"]
        == "Nearest class mean"
    )
    assert sdclr(monkeypatch, "evaluate", run.folder, "--probes", "centroid") == 78
    assert "measured here before, by my_probes:Centroid, which is not of this package" in " ".join(
        capsys.readouterr().err.split()
    )
    assert "my_probes" not in sys.modules


def test_from_python_a_probe_is_registered_and_no_text_imports_it(
    own_module: Path, run: Run
) -> None:
    with pytest.raises(
        ConfigError, match=r"register a probe of your own first: sdclr\.register_probe\(CLASS\)"
    ):
        evaluate(run, probes=["my_probes:Centroid"])
    assert "my_probes" not in sys.modules


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("my_probes:Centre", "my_probes has no Centre. Did you mean Centroid?"),
        ("my_probs:Centroid", "there is no module my_probs (for the probe)"),
        ("my_probes:torch", "my_probes:torch is not a valid probe: it must be a class, got module"),
        ("svm", "probes must be among linear, few_shot, knn"),
        ("", "got none"),
    ],
)
def test_a_probe_that_cannot_be_loaded_is_refused_before_any_work(
    own_module: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    probe: str,
    message: str,
) -> None:
    assert sdclr(monkeypatch, "evaluate", run.folder, "--probes", probe) == 78
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.journeys
def test_one_name_for_two_probes_in_one_report_is_a_warning(measured: Run) -> None:
    (arm,), _ = read_arms([measured.folder], "cached")
    (ours,) = arm.runs
    theirs = ours.evaluation.probe("ridge").model_copy(update={"origin": "theirs:Ridge"})
    changed = ours.evaluation.model_copy(
        update={"probes": ours.evaluation.probes | {"ridge": theirs}}
    )
    with pytest.warns(
        UserWarning, match="probe ridge is not the same in all runs: outside_probes:Ridge"
    ):
        probe_headings([replace(arm, runs=[ours, replace(ours, evaluation=changed)])])
    probe_headings([replace(arm, runs=[ours, ours])])  # a warning is an error here


def test_every_row_is_light_and_complete() -> None:
    for row in PROBES.values():
        assert isinstance(row, ProbeRow)
        assert row.fitters
        assert row.display_name
        assert row.summary
        for protocol in row.fitters:
            assert protocol in Protocol.__args__  # type: ignore[attr-defined]


def test_every_protocol_is_said_in_the_help_and_in_the_docs_and_has_probes() -> None:
    assert tuple(PROTOCOL_SUMMARIES) == PROTOCOLS
    help_text = " ".join(
        CliRunner().invoke(cli.app, ["evaluate", "--help"], env={"COLUMNS": "4000"}).output.split()
    )
    docs = (DOCS / "protocols.md").read_text()
    for protocol, summary in PROTOCOL_SUMMARIES.items():
        assert f"{protocol}, {summary}" in help_text
        assert f"| `{protocol}` |" in docs
        for name in probes_under(protocol):
            assert f"`{name}`" in docs or PROBES[name].origin
