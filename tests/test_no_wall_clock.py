"""No test measures seconds: on a busy machine it would fail for nothing. Work is counted (counted_work.py) instead.

Found by reading the sources: clocks and sleeps outside tests/support/patience.py, and limits below a minute, which
may end what is sound. A benchmark measures times, as ratios within one run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from patience import PATIENCE_SECONDS

TESTS = Path(__file__).parent
FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py"))
LEAST_SECONDS = 60.0
"""A limit that only ends what hangs is at least so long."""

CLOCKS = {
    "timeit",
    "repeat",
    "perf_counter",
    "monotonic",
    "process_time",
    "thread_time",
    "time",
    "clock_gettime",
    "sleep",
}
CLOCKS |= {
    f"{name}_ns" for name in ("perf_counter", "monotonic", "process_time", "thread_time", "time")
}
CLOCK_MODULES = {"time", "timeit"}
WAITS = {
    "wait": 0,
    "communicate": 1,
    "wait_for": 1,
    "alarm": 0,
    "setitimer": 1,
    "within": 0,
    "select": 3,
}
"""Calls that give up after some seconds, and the place of that number among their arguments."""
PERHAPS_WAITS = {"join": 0, "result": 0, "exception": 0, "dump_traceback_later": 0}
"""The same where the argument is a number; texts and paths are joined, too."""
LIMIT_KEYWORDS = {"timeout", "timeout_seconds", "max_time"}
MEASURED = ("second", "elapsed", "duration", "took")
"""In the name of what is compared with a number: a time."""

ALLOWED = {
    ("support/patience.py", "wait_until"): "the one clock, which ends what hangs",
    (
        "jobs/pretrain/test_checkpoint_writer.py",
        "sync",
    ): "stands for a slow disk; nothing is expected of how slow it is",
    (
        "reliability/test_several_processes.py",
        "test_random_kills_of_one_or_both_leave_a_run_that_ends_the_same",
    ): "kills at random instants; every instant must end the same",
    (
        "processes/test_messages.py",
        "test_a_store_that_does_not_answer_is_given_up",
    ): "the time after which it gives up",
    (
        "reliability/test_several_processes.py",
        "test_a_process_that_hangs_is_noticed_after_the_patience",
    ): ("the patience that is waited for; being noticed later is no failure"),
    ("support/two_hosts.py", "run"): "delays packets, as a cable does; nobody waits for how long",
    ("support/two_hosts.py", "_take"): "delays packets, as a cable does; nobody waits for how long",
}
"""(file, function) -> why its clock, sleep or short limit cannot fail on a busy machine."""


def number_of(node: ast.expr, names: dict[str, float]) -> float | None:
    """The value of a number, of a name that the module or one of ours gives to a number, or of a sum or product."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        left, right = number_of(node.left, names), number_of(node.right, names)
        if left is not None and right is not None:
            return left + right if isinstance(node.op, ast.Add) else left * right
    if isinstance(node, ast.Call) and name_of(node.func) == "timedelta":
        seconds = [keyword.value for keyword in node.keywords if keyword.arg == "seconds"]
        return number_of(seconds[0], names) if len(seconds) == len(node.keywords) == 1 else None
    return None


def numbers_named(tree: ast.AST) -> dict[str, float]:
    """The names that stand for a number anywhere in a module; of several numbers the smallest."""
    found: dict[str, float] = {"PATIENCE_SECONDS": PATIENCE_SECONDS}
    for node in ast.walk(tree):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        value = getattr(node, "value", None)
        for target in targets:
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=False))
            for name, number in pairs:
                size = number_of(number, {}) if isinstance(number, ast.expr) else None
                if isinstance(name, ast.Name) and size is not None:
                    found[name.id] = min(size, found.get(name.id, size))
    return found


def short(node: ast.expr | None, names: dict[str, float]) -> bool:
    """Whether this is a limit below a minute, or one whose length cannot be read here."""
    if node is None or (isinstance(node, ast.Constant) and node.value is None):
        return False  # no limit at all
    seconds = number_of(node, names)
    return seconds is None or seconds < LEAST_SECONDS


def name_of(node: ast.AST) -> str:
    return (
        node.attr
        if isinstance(node, ast.Attribute)
        else node.id
        if isinstance(node, ast.Name)
        else ""
    )


def about_time(node: ast.expr) -> bool:
    words = [name_of(part) for part in ast.walk(node)]
    words += [
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    return any(measured in word.lower() for word in words for measured in MEASURED)


def violations_of_a_call(node: ast.Call, names: dict[str, float]) -> Iterator[str]:
    called = name_of(node.func)
    for keyword in node.keywords:
        name = keyword.arg or ""
        if (name in LIMIT_KEYWORDS or name.startswith("patience")) and short(keyword.value, names):
            yield f"{called}({name}={ast.unparse(keyword.value)})"
        if name == "deadline" and ast.unparse(keyword.value) != "None":
            yield f"{called}({name}={ast.unparse(keyword.value)}), which is of hypothesis and for each example"
    place = WAITS.get(called, PERHAPS_WAITS.get(called))
    if place is not None and len(node.args) > place:
        limit = node.args[place]
        is_limit = called in WAITS or number_of(limit, names) is not None
        if is_limit and short(limit, names):
            yield f"{called}({ast.unparse(limit)})"
    if called == "setrlimit" and "RLIMIT_CPU" in ast.unparse(node.args[0]):
        first = node.args[1].elts[0] if isinstance(node.args[1], ast.Tuple) else node.args[1]
        if short(first, names):
            yield f"a limit of {ast.unparse(first)} CPU seconds"


def violations(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(function, what) of everything in a module that depends on how fast the machine is."""
    names = numbers_named(tree)

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.ImportFrom) and node.module in CLOCK_MODULES:
            yield function, f"from {node.module} import"
        if (
            isinstance(node, ast.Attribute)
            and name_of(node.value) in CLOCK_MODULES
            and node.attr in CLOCKS
        ):
            yield function, ast.unparse(node)
        if isinstance(node, ast.Call):
            yield from ((function, what) for what in violations_of_a_call(node, names))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
                small, large = (
                    (left, right) if isinstance(operator, ast.Lt | ast.LtE) else (right, left)
                )
                ordered = isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE)
                limit = number_of(large, names)
                if ordered and limit is not None and limit < LEAST_SECONDS and about_time(small):
                    yield function, ast.unparse(node)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    yield from visit(tree, "")


@pytest.mark.parametrize("name", FILES)
def test_nothing_fails_for_the_time_that_it_takes(name: str) -> None:
    tree = ast.parse((TESTS / name).read_text(encoding="utf-8"))
    found = {
        (function, what) for function, what in violations(tree) if (name, function) not in ALLOWED
    }
    assert not found, (
        "count work (counted_work.py), wait with patience.wait_until, or give a hang a minute"
    )


def test_every_exception_is_still_needed() -> None:
    for name, function in ALLOWED:
        tree = ast.parse((TESTS / name).read_text(encoding="utf-8"))
        assert function in {where for where, _ in violations(tree)}, (
            f"{name}: {function} needs no exception any more"
        )


@pytest.mark.parametrize(
    "line",
    [
        "begun = time.perf_counter()",
        "time.sleep(0.1)",
        "from time import monotonic",
        "timeit.timeit(action)",
        "subprocess.run(command, timeout=30)",
        "process.communicate(None, 5)",
        "process.communicate(timeout=LIMIT)",
        "thread.join(2.5)",
        "thread.join(max(0, deadline - now), timeout=left)",
        "event.wait(10)",
        "future.result(timeout=1)",
        "signal.alarm(5)",
        "settings(deadline=20_000)",
        "event.wait(self.patience)",
        "dist.init_process_group('gloo', timeout=timedelta(seconds=9))",
        "pytest.mark.timeout(timeout=10)",
        "resource.setrlimit(resource.RLIMIT_CPU, (5, 6))",
        "assert found['seconds'] < MOST",
        "assert 2.0 >= result.elapsed",
        "assert 0 < found.seconds_per_step < 5",
        "pretrain(config, patience_seconds=2.0)",
    ],
)
def test_what_depends_on_the_machine_is_found(line: str) -> None:
    code = f"LIMIT = 20\nMOST, OTHER = 2.0, 5\ndef test_x():\n    {line}\n"
    assert [function for function, _ in violations(ast.parse(code))] == ["test_x"]


@pytest.mark.parametrize(
    "line",
    [
        "','.join(words)",
        "os.path.join(root, 'x')",
        "thread.join()",
        "event.wait(PATIENCE_SECONDS)",
        "subprocess.run(command, timeout=120)",
        "process.communicate(timeout=LIMIT)",
        "settings(deadline=None)",
        "facts.get('seconds', 5)",
        "assert found.seconds_per_step > 0",
        "assert run.time == 3",
        "assert steps < 5",
    ],
)
def test_what_does_not_is_left_alone(line: str) -> None:
    assert list(violations(ast.parse(f"LIMIT = 3 * 60\ndef test_x():\n    {line}\n"))) == []
