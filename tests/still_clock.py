"""A clock for tests."""


class StillClock:
    """Moves on only when somebody sleeps, or a test moves it.

    Attributes:
        now: What `monotonic` returns.
    """

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
