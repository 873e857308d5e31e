"""A Bulkhead server of the release build, on free ports of loopback, and its processes."""

import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
# What a start takes at most; a cold libtorch on a slow disk is the longest.
START_LIMIT = 60
STOP_LIMIT = 30


def build(packages):
    command = ["cargo", "build", "--quiet", "--release", "--bins"]
    environment = {"LIBTORCH": str(ROOT / ".deps/libtorch"), **os.environ}
    named = [f"-p{name}" for name in packages]
    subprocess.run(command + named, cwd=ROOT, env=environment, check=True)


def binaries():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release"


class Failure(Exception):
    """Nothing can be measured, and why."""


class Server:
    """Serves the models in folder/models from the start to the end of a `with`."""

    stop_limit = STOP_LIMIT

    def __init__(self, folder, settings=(), log=None, programs=None):
        self.folder = folder
        self.programs = programs or binaries()
        self.settings = list(settings)
        self.log = log or folder / "server.log"

    def __enter__(self):
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=self.stop_limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def launch(self):
        self.runtime = self.folder / "runtime.json"
        self.runtime.unlink(missing_ok=True)
        self.began = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, env=self.environment(), stdout=log, stderr=log
            )

    def command(self):
        sets = ["http.listen=127.0.0.1:0", "metrics.listen=127.0.0.1:0"]
        sets += [f"runtime_file={self.runtime}", "log.filter=warn"]
        sets.append(f'repository.paths=["{self.folder}/models"]')
        sets.append(f"scratch={self.folder}/scratch")
        command = [self.programs / "bulkhead", "serve"]
        for setting in sets + self.settings:
            command += ["--set", setting]
        return command

    def environment(self):
        return None

    def wait_ready(self, pause=0.002):
        """Returns the seconds from the start of the process to all models ready."""
        while not self.runtime.exists():
            self.check(pause)
        listens = json.loads(self.runtime.read_text())
        self.address, self.metrics = listens["http"], listens.get("metrics")
        while not self.ready():
            self.check(pause)
        return time.monotonic() - self.began

    def check(self, pause):
        if self.process.poll() is not None or time.monotonic() > self.began + START_LIMIT:
            last = self.log.read_text(errors="replace").splitlines()[-10:]
            raise Failure("\n".join(["the server did not become ready; its last lines:"] + last))
        time.sleep(pause)

    def ready(self):
        try:
            urllib.request.urlopen(f"http://{self.address}/v2/health/ready", timeout=5)
            return True
        except OSError:
            return False

    def url(self, model):
        return f"http://{self.address}/v2/models/{model}/infer"

    def children(self):
        """Process id and arguments of each process that the server has started."""
        found = {}
        for folder in pathlib.Path("/proc").iterdir():
            if folder.name.isdigit() and parent(folder) == self.process.pid:
                found[int(folder.name)] = arguments(folder)
        return found

    def worker(self, model):
        """The process of the one worker of a model."""
        of_model = [pid for pid, words in self.children().items() if is_worker(words, model)]
        if len(of_model) != 1:
            raise Failure(f"{model} has {len(of_model)} workers, not one")
        return of_model[0]


def is_worker(words, model=None):
    return words[0] == "bulkhead-worker" and model in (None, words[1])


def parent(folder):
    try:
        # The name before it is in brackets and may hold anything.
        return int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def arguments(folder):
    try:
        return (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return [""]
