"""Runs of the load client, tests/src/bin/closed_load.rs."""

import json
import subprocess

PROGRAM = "closed_load"
# Beyond the time that a run is told to take; a request in flight may be slow.
PATIENCE = 60


def command(context, address, model, batch, connections):
    program = context.programs / PROGRAM
    words = [program, address, model, "--input", context.plan.input(batch), "--connections", str(connections)]
    return [str(word) for word in words]


def run(context, address, model, batch, connections, seconds):
    """A closed loop for so long: its report."""
    words = command(context, address, model, batch, connections) + ["--seconds", str(seconds)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=seconds + PATIENCE)
    return json.loads(done.stdout)


class Watch:
    """A steady load of one model, until the end of a `with`; then `answers` has all of them as
    (sent, answered, status), by `time.monotonic_ns`."""

    def __init__(self, context, address, model):
        pace = str(int(context.plan.pace * 1e6))
        self.words = command(context, address, model, 1, 1) + ["--pace-us", pace, "--answers"]
        self.answers = []

    def __enter__(self):
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, kind, *_):
        try:
            # Ends its standard input, and so the load.
            output, _ = self.process.communicate(timeout=PATIENCE if kind is None else 0.1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            if kind is None:
                raise
            return
        if kind is None:
            self.answers = [tuple(answer) for answer in json.loads(output)["answers"]]
