"""Python's torch in a process of its own (in_torch.py), so that a call into the driver that hangs can
be ended, and nothing that it does to its context matters here."""

import json
import subprocess


class TorchFailure(Exception):
    """What Python's torch said."""


class Torch:
    def __init__(self, python, device, log):
        words = [python, "-B", "-m", "gpu_check.in_torch", device]
        self.log, self.waiting = log, False
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
            )
        try:
            self.about = self.hear()
        except BaseException:
            self.end()
            raise

    def ask(self, what, **order):
        self.process.stdin.write(json.dumps({"what": what, **order}) + "\n")
        return self.hear()

    def hear(self):
        # Stays so if this is broken off: then what comes next is the answer to something else.
        self.waiting = True
        line = self.process.stdout.readline()
        self.waiting = False
        if not line:
            last = last_line(self.log.read_text(errors="replace"))
            raise TorchFailure(f"Python with torch has ended, with code {self.process.wait()}: {last}")
        answer = json.loads(line)
        if "error" in answer:
            raise TorchFailure(answer["error"])
        return answer

    def usable(self):
        return not self.waiting and self.process.poll() is None

    def end(self):
        self.process.kill()
        self.process.communicate()


def last_line(text):
    return (text.strip().splitlines() or ["no reason was given"])[-1]
