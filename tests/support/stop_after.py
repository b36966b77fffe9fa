"""A progress display that stops a job after so many images, as a kill would."""

from __future__ import annotations

from sdclr.presentation.progress import NoProgress


class StopAfter(NoProgress):
    """Fails after so many images; ``begun_at`` has where each task went on."""

    def __init__(self, images: int) -> None:
        self.left = images
        self.begun_at: list[int] = []

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int:
        self.begun_at.append(done)
        return 0

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt
