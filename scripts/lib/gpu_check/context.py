"""What the sections share: the plan, where things are, and Python's torch."""

import pathlib
import subprocess

from gpu_check.torch_side import Torch, TorchFailure, last_line

SCRIPTS = pathlib.Path(__file__).resolve().parents[2]
MODELS_LIMIT = 90


class Context:
    def __init__(self, plan, clock, programs, python, folder):
        self.plan, self.clock, self.programs, self.python, self.folder = plan, clock, programs, python, folder
        self.models = folder / "models"
        self.made = 0
        self.torch_side = None

    def torch(self):
        """A new one if the one before was broken off."""
        if self.torch_side is None or not self.torch_side.usable():
            self.end_torch()
            self.torch_side = Torch(self.python, self.plan.device, self.folder / "torch.log")
        return self.torch_side

    def end_torch(self):
        if self.torch_side is not None:
            self.torch_side.end()
            self.torch_side = None

    def write_models(self):
        kind = "KIND_GPU" if self.plan.on_gpu else "KIND_CPU"
        words = [self.python, "-B", SCRIPTS / "models/gpu_check.py", self.models]
        words += [str(self.plan.side), kind, str(self.plan.gpu)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=MODELS_LIMIT)
        if done.returncode != 0:
            raise TorchFailure("the models cannot be written: " + last_line(done.stderr))

    def model_file(self, model):
        return str(self.models / model / "1/model.pt")

    def shape(self, batch):
        return [batch, 3, self.plan.side, self.plan.side]

    def new_folder(self):
        self.made += 1
        folder = self.folder / f"server{self.made}"
        folder.mkdir()
        return folder

    def new_log(self):
        return self.folder / f"server{self.made}.log"
