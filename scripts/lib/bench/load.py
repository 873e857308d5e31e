"""A steady load of the digits model: a request each so often, whatever became of those before.

The requests are sent by a small program of their own (tests/src/bin/steady_load.rs), which takes
little from the machine that it shares with the server.
"""

import select
import subprocess

from bench.server import binaries

PROGRAM = "steady_load"


class Load:
    """Start it, mark moments by `time.monotonic_ns`, stop it to get its answers."""

    def __init__(self, address, model, pace):
        command = [binaries() / PROGRAM, address, model, str(pace)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        # All connections stand.
        self.hear()

    def good_answer_after(self, moment, limit=30):
        """When the first good answer came to what was asked for after `moment`."""
        self.process.stdin.write(f"after {moment}\n")
        return int(self.hear(limit))

    def stop(self):
        """All answers: (asked, answered, good), in nanoseconds."""
        answers, _ = self.process.communicate("stop\n", timeout=30)
        fields = (line.split() for line in answers.splitlines())
        return [(int(asked), int(answered), good == "1") for asked, answered, good in fields]

    def hear(self, limit=30):
        # Nothing is left unread between two lines, so the pipe tells whether there is one.
        if not select.select([self.process.stdout], [], [], limit)[0]:
            self.process.kill()
            raise TimeoutError(f"nothing came from {PROGRAM}: no connection, or no good answer")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{PROGRAM} has ended, with code {self.process.wait()}")
        return line
