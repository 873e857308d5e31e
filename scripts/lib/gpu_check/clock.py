"""The clock of the whole run, and of each section of it."""

import contextlib
import signal
import time

# Less than eight minutes, with time to end what was started.
TOTAL = 455
# A section that would have less is not begun.
LEAST = 5


class OutOfTime(Exception):
    """Raised in the main thread, wherever it waits."""


class Clock:
    def __init__(self, total=TOTAL):
        self.began = time.monotonic()
        self.end = self.began + total
        self.section_end = self.end
        signal.signal(signal.SIGALRM, self.ring)

    def elapsed(self):
        return time.monotonic() - self.began

    def left(self):
        """Of this section."""
        return self.section_end - time.monotonic()

    @contextlib.contextmanager
    def section(self, seconds):
        """What is done in it is broken off at the end of its time."""
        now = time.monotonic()
        if self.end - now < LEAST:
            raise OutOfTime("out of time: what came before took all of it")
        self.section_end = min(now + seconds, self.end)
        signal.setitimer(signal.ITIMER_REAL, self.section_end - now)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def ring(self, *_):
        raise OutOfTime(f"broken off: out of time, {self.elapsed():.0f} s after the start of all")
