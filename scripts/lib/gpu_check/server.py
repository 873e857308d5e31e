"""The server under test, with a configuration file of its own."""

import contextlib
import json
import os
import time

from bench.server import Failure, Server
from gpu_check import calls

START_LIMIT = 90
# What of the log goes into the reason of a failure.
LAST_LINES = 6

CONFIG = """\
scratch = "{folder}/scratch"

[log]
format = "human"

[devices]
nvml = "{nvml}"
measured = "{folder}/measured.json"

[repository]
paths = ["{models}"]
startup = {startup}

[worker]
load_timeout = "2m"
gpu_memory_limit = "{memory}"

[shutdown]
drain_timeout = "2s"
"""


@contextlib.contextmanager
def serving(context, models, memory, more=""):
    """A server of these models, each with so much of the GPU at most. `more` is further configuration."""
    folder = context.new_folder()
    nvml = "auto" if context.plan.on_gpu else "off"
    values = {"folder": folder, "nvml": nvml, "models": context.models, "startup": json.dumps(models), "memory": memory}
    config = folder / "config.toml"
    config.write_text(CONFIG.format(**values) + more)
    server = ConfiguredServer(folder, config, context)
    with server:
        yield server


class ConfiguredServer(Server):
    stop_limit = 10

    def __init__(self, folder, config, context):
        super().__init__(folder, log=context.new_log())
        self.config, self.context = config, context

    def command(self):
        runtime = f"runtime_file={self.runtime}"
        program = self.context.programs / "bulkhead"
        return [program, "serve", "--config", self.config, "--set", "http.listen=127.0.0.1:0", "--set", "metrics.listen=off",
                "--set", runtime]

    def environment(self):
        inherited = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        path = [*self.context.torch().about["libraries"], *filter(None, inherited)]
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(path)}

    def check(self, pause):
        limit = min(START_LIMIT, self.context.clock.left() + time.monotonic() - self.began - 2)
        if self.process.poll() is not None or time.monotonic() > self.began + limit:
            took = time.monotonic() - self.began
            raise Failure(f"the server did not become ready in {took:.0f} s: {self.why()}")
        time.sleep(max(pause, 0.01))

    def why(self):
        """What it says of its models, else the end of its log."""
        with contextlib.suppress(OSError, AttributeError, ValueError):
            listed = [(model["name"], model.get("reason")) for model in calls.index(self.address)]
            reasons = [f"{name}: {reason}" for name, reason in listed if reason]
            if reasons:
                return "; ".join(reasons)
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]) or "it does not say why"
