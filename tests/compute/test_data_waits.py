from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sdclr.compute.data_waits import DataWaits, DeviceMark


class Queue:
    """A device that a host gives work to: its clock, and when it will have done all it has."""

    def __init__(self) -> None:
        self.now = self.free_at = 0.0

    def queue(self, seconds: float) -> None:
        self.free_at = max(self.free_at, self.now) + seconds

    def mark(self) -> Moment:
        self.queue(0.0)
        return Moment(self, self.free_at)


class Moment:
    def __init__(self, device: Queue, at: float) -> None:
        self.device, self.at = device, at

    def is_past(self) -> bool:
        return self.device.now >= self.at

    def seconds_since(self, other: Moment) -> float:
        self.device.now = max(self.device.now, self.at)
        return self.at - other.at


def run(host: float, views: float, step: float, num: int) -> tuple[DataWaits, Queue]:
    """``num`` steps: a batch takes the host ``host`` seconds and the device ``views``, a step the device ``step``."""
    device = Queue()
    waits = DataWaits(torch.device("cpu"), device.mark)

    def batches() -> Iterator[int]:
        for number in range(num):
            device.now += host
            device.queue(views)
            yield number

    for _ in waits.of(batches()):
        device.queue(step)
        device.now += 0.001  # to queue it
    return waits, device


@pytest.mark.parametrize(
    ("host", "views", "step", "waited"),
    [
        # the host is ahead: the device has work all the time, and pays for its views alone
        (0.004, 0.0, 0.1, 0.004),
        (0.004, 0.01, 0.1, 0.004 + 20 * 0.01),
        # the device is done at once and waits for a slow host, but for what the queueing takes
        (0.5, 0.0, 0.001, 20 * 0.5),
    ],
)
def test_the_waiting_counted_is_the_devices(
    host: float, views: float, step: float, waited: float
) -> None:
    waits, device = run(host, views, step, num=20)
    assert waits.seconds() == pytest.approx(waited, rel=1e-6)
    assert waits.seconds() <= device.free_at


def test_an_epoch_of_any_length_leaves_few_marks_behind() -> None:
    waits, _ = run(host=0.5, views=0.0, step=0.001, num=10_000)
    assert len(waits._spans) <= 2


def test_on_a_cpu_the_hosts_time_counts_and_every_batch_comes_as_it_is() -> None:
    waits = DataWaits(torch.device("cpu"))
    given = [None, 3]  # None is no end
    assert list(waits.of(iter(given))) == given
    assert waits.seconds() > 0


def test_a_batch_that_fails_ends_the_counting_with_its_error() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("a picture is broken")

    waits = DataWaits(torch.device("cpu"))
    with pytest.raises(ValueError, match="broken"):
        list(waits.of(failing()))
    assert waits.seconds() >= 0


@pytest.mark.gpu
@pytest.mark.parametrize("busy_with", ["steps", "views"])
def test_a_device_waits_for_views_and_not_for_steps(busy_with: str) -> None:
    device = torch.device("cuda")

    def cycles(kind: str) -> None:
        torch.cuda._sleep(20_000_000 if kind == busy_with else 0)

    def batches() -> Iterator[int]:
        for number in range(5):
            cycles("views")
            yield number

    waits, begun = DataWaits(device), DeviceMark(device)
    for _ in waits.of(batches()):
        cycles("steps")
    share = waits.seconds() / DeviceMark(device).seconds_since(begun)
    assert (share > 0.5) == (busy_with == "views")
