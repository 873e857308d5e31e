"""Waits for a server that was just started, then prints a command that gets a prediction from it.

Usage: announce.py SERVER_PID RUNTIME_FILE DATA

RUNTIME_FILE is the JSON file in which the server writes its addresses; DATA is the folder of the
held-out digits. Ends with the server at the latest, so it never outlives it.
"""

import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

POLL_SECONDS = 0.2
# Loading takes a second; past this, something is wrong and the log says what.
READY_SECONDS = 60


def main(server: int, runtime_file: pathlib.Path, data: pathlib.Path) -> None:
    while not (address := http_address(server, runtime_file)):
        wait_a_little(server)
    base = f"http://{address}/v2/models/digits"

    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if answers_well(f"{base}/ready"):
            announce(base, data)
            return
        wait_a_little(server)
    print(f"The digits model is not ready after {READY_SECONDS} s; the log says why.", flush=True)


def http_address(server: int, runtime_file: pathlib.Path) -> str | None:
    """Where this server listens; None as long as the file is not there or an earlier server's."""
    try:
        runtime = json.loads(runtime_file.read_text())
    except (OSError, ValueError):
        return None
    if runtime.get("pid") != server or not runtime.get("http"):
        return None
    # A server that listens everywhere is also here.
    return runtime["http"].replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")


def wait_a_little(server: int) -> None:
    # A process that has ended, but that its parent has not waited for yet, has no `exe` either.
    if not pathlib.Path(f"/proc/{server}/exe").exists():
        sys.exit()
    time.sleep(POLL_SECONDS)


def answers_well(url: str) -> bool:
    # A proxy from the environment has no business between us and this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return response.status == 200
    except (OSError, urllib.error.HTTPError):
        return False


def announce(base: str, data: pathlib.Path) -> None:
    label = (data / "one.label").read_text().strip()
    print(
        f"""
Bulkhead is ready. In another terminal:

    curl -s {base}/infer -H 'Content-Type: application/json' -d @{data / "one.json"}

The image is a {label}: of the ten logits that come back, the one at index {label} is the largest.
""",
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
