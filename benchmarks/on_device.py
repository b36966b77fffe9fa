"""Everything that a CUDA device is wanted for, in one command that fits ten minutes and goes on where it stopped.

    python benchmarks/on_device.py --out DIR --minutes 10 [--data CIFAR --splits-dir SPLITS [--grid paper]] [--only ...]
    python benchmarks/on_device.py --out DIR --rehearse

What is missing (a package, the data, a device) is said before anything is begun. What needs no quiet device runs
first and all at once: the GPU tests, compiling for the benches, the paper's runs. What times something follows, each by
itself. Each has a limit, and one for which too little time is left is not begun. After each, DIR/device.json
says what became of it, and DIR/<stage>.log holds its words; the same command leaves out what is done or has failed,
and begins again what was stopped (the paper's runs go on where they were). SIGTERM or Ctrl-C stops what runs and
writes that down, too. ``--rehearse`` shows on a CPU that stages start and are written down, with work of seconds; its
DIR must not be that of a session.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "torchvision", "timm", "pydantic", "typer", "safetensors", "imagehash")
GPU_TESTS = (
    "compute/test_data_waits.py",
    "jobs/test_pretrain.py",
    "evaluation/test_logistic_probe.py",
    "methods/test_magnitude_masks.py",
    "data/views/test_augment.py",
    "data/views/test_cutting_on_device.py",
    "data/collections/test_image_files.py",
)
RESERVE_SECONDS = 10.0
"""What is left for the end of the command."""
PATIENCE_SECONDS = 10.0
"""What a stage gets to write itself down after it was told to stop."""


SESSION, REHEARSAL = "device session", "device rehearsal"


@dataclass(frozen=True)
class Stage:
    """One thing to do."""

    name: str
    command: tuple[str, ...]
    least: float
    """Seconds without which it is not worth beginning."""
    most: float
    """Seconds after which it is stopped; what it has written by then stays."""
    beside: bool = False
    """Whether it may run beside others of its kind: it needs no quiet device."""


@dataclass
class Outcome:
    """What became of a stage."""

    state: str
    """done, failed, stopped, or left out."""
    seconds: float = 0.0
    code: int | None = None
    why: str = ""


@dataclass
class Session:
    """The stages of one command, and what the commands before it have done."""

    out: Path
    stages: Sequence[Stage]
    minutes: float
    clock: Callable[[], float] = time.monotonic
    run: Callable[[Stage, Path, float], int | None] | None = None
    """Runs a stage into a log within so many seconds; None where they did not suffice."""
    say: Callable[[str], object] = print
    kind: str = SESSION
    """What device.json is called: a rehearsal has done nothing of a session."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._end = self.clock() + 60 * self.minutes - RESERVE_SECONDS
        self._is_over = False
        if self._file.is_file():
            self.outcomes = self._before()

    def _before(self) -> dict[str, Outcome]:
        """What earlier commands have written down. ValueError where that is damaged, or of another kind."""
        try:
            facts = json.loads(self._file.read_text())
            kind = facts["kind"]
            found = {name: Outcome(**outcome) for name, outcome in facts["stages"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self._file} is damaged ({error}). Remove it, and all stages run again"
            ) from None
        if kind != self.kind:
            raise ValueError(
                f"{self._file} is of a {kind}, and this is a {self.kind}. Give another --out"
            )
        return found

    @property
    def _file(self) -> Path:
        return self.out / "device.json"

    def carry_out(self) -> bool:
        """Every stage that is not done and fits; whether all are done."""
        self.out.mkdir(parents=True, exist_ok=True)
        alone = [[stage] for stage in self.stages if not stage.beside]
        for stages in [[stage for stage in self.stages if stage.beside], *alone]:
            self._at_once([stage for stage in stages if self._fits(stage)])
        return all(self.outcomes[stage.name].state == "done" for stage in self.stages)

    def _fits(self, stage: Stage) -> bool:
        """Whether it is still to be done and has time enough; if only the latter is wanting, that is written down."""
        before = self.outcomes.get(stage.name)
        if before is not None and before.state in ("done", "failed"):
            return False
        left = self._end - self.clock()
        if left >= stage.least:
            return True
        if before is None or before.state != "stopped":
            why = f"needs {stage.least:.0f} s, {max(left, 0):.0f} s are left"
            self.outcomes[stage.name] = Outcome("left out", why=why)
        self._write()
        self._say(stage)
        return False

    def _at_once(self, stages: Sequence[Stage]) -> None:
        if not stages:
            return
        left = self._end - self.clock()
        running: dict[Future[Outcome], Stage] = {}
        with ThreadPoolExecutor(len(stages)) as threads:
            try:
                for stage in stages:
                    running[threads.submit(self._one, stage, min(stage.most, left))] = stage
                for ended in as_completed(list(running)):
                    self._take(ended, running.pop(ended))
            except BaseException:  # a signal comes here, and not to the threads that wait for them
                with _deaf():
                    self._is_over = True
                    _stop_all(list(running))
                    for ended, stage in running.items():
                        self._take(ended, stage)
                raise

    def _take(self, ended: Future[Outcome], stage: Stage) -> None:
        self.outcomes[stage.name] = ended.result()
        self._write()
        self._say(stage)

    def _one(self, stage: Stage, seconds: float) -> Outcome:
        begun = self.clock()
        if self._is_over:
            return Outcome("stopped", why="the command was ended")
        try:
            code = (self.run or run_stage)(stage, self.out / f"{stage.name}.log", seconds)
        except Exception as error:  # the others are to be written down
            return Outcome("failed", self.clock() - begun, why=f"{type(error).__name__}: {error}")
        spent = self.clock() - begun
        if self._is_over:  # even with exit code 0
            return Outcome("stopped", spent, why="the command was ended")
        if code is None:
            return Outcome("stopped", spent, why=f"its {seconds:.0f} s were over")
        return Outcome("done" if code == 0 else "failed", spent, code)

    def _say(self, stage: Stage) -> None:
        self.say(f"{stage.name}: {_words(self.outcomes[stage.name])}")

    def _write(self) -> None:
        facts = {
            "kind": self.kind,
            "date": datetime.date.today().isoformat(),
            "stages": {name: asdict(outcome) for name, outcome in self.outcomes.items()},
        }
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
        temporary.replace(self._file)


def _words(outcome: Outcome) -> str:
    code = "" if outcome.code in (None, 0) else f", exit code {outcome.code}"
    why = f", {outcome.why}" if outcome.why else ""
    return f"{outcome.state} after {outcome.seconds:.0f} s{code}{why}"


def run_stage(stage: Stage, log: Path, seconds: float) -> int | None:
    """Its exit code; None where it was stopped. Its whole process group is stopped with it."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            stage.command,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": _search_path(), "PYTHONUNBUFFERED": "1"},
        )
        _RUNNING.add(process)
        try:
            return process.wait(timeout=max(seconds - PATIENCE_SECONDS, 1))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGTERM)
            try:
                process.wait(timeout=PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
            return None
        except BaseException:
            _signal(process, signal.SIGKILL)
            raise
        finally:
            _RUNNING.discard(process)


_RUNNING: set[subprocess.Popen[bytes]] = set()


def _stop_all(stages: Sequence[Future[Outcome]]) -> None:
    """Let what runs write itself down, and end it; what starts meanwhile, too."""
    until, told = time.monotonic() + PATIENCE_SECONDS, set[subprocess.Popen[bytes]]()
    while not all(stage.done() for stage in stages):
        for process in list(_RUNNING):
            if time.monotonic() > until:
                _signal(process, signal.SIGKILL)
            elif process not in told:
                _signal(process, signal.SIGTERM)
                told.add(process)
        time.sleep(0.05)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Inside, a second signal does not keep the first one's work from its end."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ENDING = (signal.SIGTERM, signal.SIGINT)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the whole group, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _search_path() -> str:
    """This checkout's code first, which need not be installed."""
    ours = [HERE.parent / "src", HERE.parent / "tests" / "support", HERE]
    return os.pathsep.join([*map(str, ours), os.environ.get("PYTHONPATH", "")])


def planned(
    out: Path, data: Path | None, splits: Path | None, python: str, grid: str = "paper"
) -> list[Stage]:
    """What times nothing first, then the benches in the order of their worth."""
    tests = [str(HERE.parent / "tests" / name) for name in GPU_TESTS]
    quiet = ["-p", "no:cacheprovider", "-p", "no:benchmark", "--tb=short", "-v"]
    # one after another they take ten minutes, most of them compiling
    if importlib.util.find_spec("xdist"):
        quiet += ["-n", "4"]
    facts = [f"{HERE}/device_facts.py", "--json", f"{out}/facts.json"]
    # what auto does, and not what fp32 would cost beside it
    step = [f"{HERE}/step.py", "--minutes", "4", "--precision", "bf16", "--overwrite", "--json"]
    large = [f"{out}/bench-large.json", "--backbone", "resnet50", "--size", "224", "--batch", "256"]
    pytest = (python, "-m", "pytest", "-m", "gpu", *quiet, *tests)
    stages = [
        Stage("tests", pytest, 90, 300, beside=True),
        Stage("compile", (python, f"{HERE}/compile_ahead.py"), 60, 300, beside=True),
    ]
    if data is not None and splits is not None:
        run = ["-m", "sdclr", "grid", grid, "--device", "cuda", "--out", f"{out}/{grid}"]
        places = ["--data", str(data), "--splits-dir", str(splits)]
        records = ["--records", f"{out}/records"]
        stages.append(Stage(grid, (python, *run, *places, *records), 60, 300, beside=True))
    stages += [
        Stage("bench", (python, *step, f"{out}/bench.json"), 100, 270),
        Stage("bench-large", (python, *step, *large), 150, 270),
        Stage("facts", (python, *facts), 60, 240),
    ]
    if data is not None and splits is not None:  # what is left of the minutes
        stages.append(Stage(f"{grid}-on", (python, *run, *places, *records), 60, 3600))
    return stages


def rehearsed(out: Path, python: str) -> list[Stage]:
    """The same commands as far as a CPU can start them, with work of seconds."""
    facts = [f"{HERE}/device_facts.py", "--json", f"{out}/facts.json"]
    ahead = (python, f"{HERE}/compile_ahead.py", "--small")
    return [
        Stage("tests", (python, "-m", "pytest", "--version"), 1, 60, beside=True),
        Stage("compile", ahead, 1, 120, beside=True),
        Stage("paper", (python, "-m", "sdclr", "grid", "paper", "--help"), 1, 60, beside=True),
        Stage("bench", (python, f"{HERE}/step.py", "--help"), 1, 60),
        Stage("facts", (python, *facts, "--small", "--only", "selection"), 1, 60),
    ]


def problems(data: Path | None, splits: Path | None, *, rehearse: bool) -> list[str]:
    """What would waste the time of a device."""
    found = [
        f"the package {name} is missing"
        for name in PACKAGES
        if importlib.util.find_spec(name) is None
    ]
    if found:
        return found
    import torch

    if not rehearse and not torch.cuda.is_available():
        found.append("torch sees no CUDA device")
    found += [
        f"{path} is not there" for path in (data, splits) if path is not None and not path.exists()
    ]
    if (data is None) != (splits is None):
        found.append("--data and --splits-dir go together")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--splits-dir", type=Path)
    parser.add_argument(
        "--grid",
        default="paper",
        choices=("paper", "paper_short"),
        help="paper (2000 epochs) or paper_short (150)",
    )
    parser.add_argument("--only", nargs="+", metavar="STAGE")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    if not 0 < arguments.minutes < math.inf:
        parser.exit(78, f"error: --minutes must be more than 0, got {arguments.minutes:g}.\n")
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.exit(78, f"error: --out {arguments.out} is a file; give a folder.\n")
    if found := problems(arguments.data, arguments.splits_dir, rehearse=arguments.rehearse):
        parser.exit(78, "".join(f"error: {words}.\n" for words in found))
    out, python = arguments.out.absolute(), sys.executable
    data, splits = (path and path.absolute() for path in (arguments.data, arguments.splits_dir))
    stages = (
        rehearsed(out, python)
        if arguments.rehearse
        else planned(out, data, splits, python, arguments.grid)
    )
    names = [stage.name for stage in stages]
    if unknown := set(arguments.only or names) - set(names):
        parser.exit(
            78,
            f"error: there is no stage {', '.join(sorted(unknown))}; there are {', '.join(names)}.\n",
        )
    chosen = [stage for stage in stages if stage.name in (arguments.only or names)]
    kind = REHEARSAL if arguments.rehearse else SESSION
    try:
        session = Session(out, chosen, arguments.minutes, kind=kind)
    except ValueError as error:
        parser.exit(78, f"error: {error}.\n")
    signal.signal(signal.SIGTERM, _end)
    sys.exit(0 if session.carry_out() else 1)


def _end(number: int, frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
