"""Checks Bulkhead on this machine's GPU, in less than eight minutes, and prints tables.

What it needs is Linux on x86_64 and a Python with torch 2.11; no compiler, no network. Every process
that it starts is ended with it. It ends with 0 if no aim was missed, with 1 if one was, with 2 if
nothing could be measured.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from bench.figures import machine
from bench.server import Failure
from gpu_check import children, plan
from gpu_check.clock import Clock, OutOfTime
from gpu_check.context import SCRIPTS, Context
from gpu_check.report import Report, Table
from gpu_check.sections import correctness, faults, throughput, transfers, unload, zygote
from gpu_check.torch_side import TorchFailure

SECTIONS = [correctness, transfers, throughput, unload, faults, zygote]
PROGRAMS = ["bulkhead", "bulkhead-worker", "bulkhead-worker-torch", "closed_load"]
SETUP_LIMIT = 120
MISSED, NOTHING = 1, 2
# What can go wrong in a section; the others go on.
FAILURES = (Failure, OutOfTime, TorchFailure, OSError, subprocess.SubprocessError, ValueError, KeyError)


class Ended(Exception):
    """By a signal."""


def main():
    parser = arguments()
    options = parser.parse_args()
    if options.keep and options.keep.exists():
        parser.error(f"--keep: {options.keep} is there already")
    for number in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]:
        signal.signal(number, end)
    children.adopt_orphans()
    try:
        with tempfile.TemporaryDirectory(prefix="bulkhead-gpu-check-", ignore_cleanup_errors=True) as folder:
            if options.keep:
                options.keep.mkdir(parents=True)
            return run(options, (options.keep or pathlib.Path(folder)).resolve())
    except Ended as ended:
        note(f"ended: {ended}")
        return NOTHING
    finally:
        if left := children.end_all():
            note(f"had to be ended at the end: {', '.join(left)}")


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/gpu-check run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu is a rehearsal without a GPU")
    parser.add_argument("--gpu", type=int, default=visible_gpu(), help="its number, as nvidia-smi counts (%(default)s)")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch (%(default)s)")
    parser.add_argument("--bin", type=pathlib.Path, default=default_programs(), help="the programs (%(default)s)")
    parser.add_argument("--only", action="append", choices=[section.NAME for section in SECTIONS], help="this section")
    parser.add_argument("--json", type=pathlib.Path, help="all rows, figures and aims, as a file")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for models and logs, which then stay")
    return parser


def visible_gpu():
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return int(first) if first.isdigit() else 0


def default_programs():
    carried = SCRIPTS.parent / "bin"
    return carried if carried.is_dir() else SCRIPTS.parent / "target/release"


def end(number, _frame):
    raise Ended(signal.Signals(number).name)


def note(text):
    print(f"scripts/gpu-check: {text}", file=sys.stderr, flush=True)


def run(options, folder):
    prepare_environment(options)
    clock = Clock()
    context = Context(plan.of(options.device, options.gpu), clock, options.bin.resolve(), options.python, folder)
    try:
        with clock.section(SETUP_LIMIT):
            report = Report(set_up(context))
    except FAILURES as failure:
        note(f"nothing can be measured: {failure}")
        return NOTHING
    for section in SECTIONS:
        if not options.only or section.NAME in options.only:
            one_section(context, section, report)
            keep(report, options)
    print(*report.aim_lines(), sep="\n", flush=True)
    context.end_torch()
    return 0 if report.all_reached() else MISSED


def prepare_environment(options):
    # What is on this machine is not behind a proxy.
    os.environ["no_proxy"] = "*"
    os.environ["PYTHONPATH"] = str(SCRIPTS / "lib")
    if options.device == "cuda":
        # As NVML, and so Bulkhead, counts them.
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ["CUDA_VISIBLE_DEVICES"] = str(options.gpu)


def set_up(context):
    """Looks whether all is there, writes the models; returns what the figures are figures of."""
    for program in PROGRAMS:
        if not (context.programs / program).is_file():
            raise Failure(f"there is no {program} in {context.programs}: scripts/gpu-check pack brings it along")
    version = subprocess.run([context.programs / "bulkhead", "--version"], capture_output=True, text=True, timeout=10)
    if version.returncode != 0:
        raise Failure(f"bulkhead does not run on this machine: {version.stderr.strip()}")
    about = {key: value for key, value in context.torch().about.items() if key != "libraries"}
    about |= {"bulkhead": version.stdout.strip(), "machine": machine(), **carried_about()}
    print(", ".join(f"{key}: {value}" for key, value in about.items()))
    wanted = about.get("built_for_torch")
    if wanted and not about["torch"].startswith(wanted):
        note(f"the workers were built for torch {wanted}; this is {about['torch']}")
    if not context.plan.on_gpu:
        side = context.plan.side
        print(f"A rehearsal on the CPU, briefly and with images of {side} x {side}: no figure means anything.")
    note(f"writing the models, {context.clock.elapsed():.0f} s")
    context.write_models()
    return about


def carried_about():
    """What pack wrote down."""
    with contextlib.suppress(OSError):
        return json.loads((SCRIPTS.parent / "about.json").read_text())
    return {}


def one_section(context, section, report):
    table = Table(section.NAME, section.TITLE, section.COLUMNS, section.rows(context.plan))
    note(f"{section.NAME}, {context.clock.elapsed():.0f} s")
    why = "not measured"
    try:
        with context.clock.section(context.plan.budgets[section.NAME]):
            section.run(context, table)
    except FAILURES as failure:
        why = f"{failure}" or type(failure).__name__
        # Of a section that was broken off anything may still run.
        context.end_torch()
        children.end_all()
    table.fill(why)
    report.tables.append(table)
    report.aims += section.aims(context.plan, table)
    print(*table.lines(), sep="\n", flush=True)


def keep(report, options):
    # After each section: whatever ends the run, what was measured is there.
    if options.json:
        options.json.write_text(report.as_json())


if __name__ == "__main__":
    sys.exit(main())
