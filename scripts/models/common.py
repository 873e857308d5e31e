"""What the model scripts share: a fixed state of torch, and the layout of a model repository."""

import pathlib
import warnings

import torch

SEED = 20_260_101


def fix_randomness() -> None:
    """The same weights on every machine of a kind: one seed, one thread, no choice of algorithm."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def script(module: torch.nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # TorchScript is deprecated in Python; libtorch runs it as before.
        warnings.simplefilter("ignore")
        return torch.jit.script(module.eval())


def write_model(folder: pathlib.Path, module: torch.nn.Module, config: str) -> pathlib.Path:
    """Writes one model of a repository: its configuration and version 1. Returns the model file."""
    file = folder / "1" / "model.pt"
    file.parent.mkdir(parents=True)
    script(module).save(str(file))
    (folder / "config.pbtxt").write_text(config)
    return file
