"""The echo model: gives back what it is sent. Its engine is built in, so it has no model file.

Usage: echo.py FOLDER
"""

import pathlib
import sys

CONFIG = """\
# Gives back what it is sent. The engine is built in: version 1 is an empty folder.
name: "echo"
backend: "echo"
max_batch_size: 0
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""


def main(folder: pathlib.Path) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
