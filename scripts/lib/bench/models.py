"""Model repositories that are made for a measurement."""

import os
import pathlib
import re
import shutil

from bench.server import ROOT, Failure

ECHO = """
name: "{name}"
backend: "echo"
input [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: {dims} }} ]
output [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: {dims} }} ]
"""


def add_echo(folder, name, dims):
    model = folder / "models" / name
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(ECHO.format(name=name, dims=dims))


def add_digits(folder, name):
    """A copy of the digits model under another name, with a file of its own."""
    source = digits()
    model = folder / "models" / name
    (model / "1").mkdir(parents=True)
    config = (source / "config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(re.sub(r'^name: .*$', f'name: "{name}"', config, flags=re.M))
    shutil.copyfile(source / "1/model.pt", model / "1/model.pt")


def digits():
    models = pathlib.Path(os.environ.get("BULKHEAD_MODELS", ROOT / ".deps/models"))
    if not (models / "digits/1/model.pt").exists():
        raise Failure(f"no digits model in {models}; scripts/setup makes it")
    return models / "digits"
