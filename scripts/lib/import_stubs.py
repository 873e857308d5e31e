"""Hollow libraries that let Python's torch be imported without CUDA's own.

The wheel's libtorch_python.so names libtorch_cuda.so, which names a dozen NVIDIA libraries of 1.5 GB
in all. On a machine without a GPU no function of theirs is ever called, but the loader wants every
library to be there, with the symbols and symbol versions that are asked of it. This writes libraries
that have them; each function ends the process.

Usage: import_stubs.py FOLDER, with the Python into which torch is installed; then import torch with
FOLDER in LD_LIBRARY_PATH.
"""

import collections
import pathlib
import re
import subprocess
import sys
import sysconfig

SITE = pathlib.Path(sysconfig.get_paths()["purelib"])
TORCH = SITE / "torch/lib"
NVIDIA = SITE / "nvidia/cu13/lib"
# What `import torch` loads and what has undefined symbols of NVIDIA's.
LOADED = ["libtorch_python.so", "libtorch_cuda.so", "libc10_cuda.so", "libtorch_nvshmem.so"]


def main(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stubs = missing_libraries()
    versioned, plain = undefined_symbols()
    # A symbol without a version may come from any library, so one stub has all of those.
    bearer = min(stubs)
    for name in sorted(stubs):
        symbols = versioned[name]
        write_stub(folder / name, symbols, plain if name == bearer else set())
        print(f"{name}: {sum(map(len, symbols.values()))} symbols with a version")
    print(f"{bearer}: {len(plain)} symbols without")


def missing_libraries() -> set[str]:
    """The libraries that torch's own ask for and that neither the wheels nor the system have."""
    needed = set()
    for library in LOADED:
        needed |= set(re.findall(r"NEEDED\s+(\S+)", run("objdump", "-p", TORCH / library)))
    present = {path.name for folder in (TORCH, NVIDIA) for path in folder.iterdir()}
    return {name for name in needed - present if not on_system(name)}


def on_system(library: str) -> bool:
    """Whether it is one of the C and C++ libraries that everything here is linked with."""
    return bool(re.match(r"(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux.*)\.so", library))


def undefined_symbols() -> tuple[dict[str, dict[str, set[str]]], set[str]]:
    """What is asked of others: {library: {version: names}}, and names that carry no version."""
    versioned = collections.defaultdict(lambda: collections.defaultdict(set))
    plain, defined = set(), set()
    for library in LOADED:
        owners = version_owners(TORCH / library)
        for symbol in names(TORCH / library, "--undefined-only"):
            name, _, version = symbol.partition("@")
            version = version.lstrip("@")
            if version in owners:
                versioned[owners[version]][version].add(name)
            elif not version:
                plain.add(name)
    for library in [*TORCH.glob("lib*.so*"), *NVIDIA.glob("lib*.so*")]:
        defined |= {symbol.partition("@")[0] for symbol in names(library, "--defined-only")}
    # The interpreter itself has these.
    python = {name for name in plain if name.startswith(("Py", "_Py"))}
    return versioned, plain - defined - python


def version_owners(library: pathlib.Path) -> dict[str, str]:
    """Which library each version of a foreign symbol belongs to: {version: library}."""
    owners, owner = {}, None
    for line in run("objdump", "-p", library).splitlines():
        if heading := re.match(r"\s+required from (\S+):", line):
            owner = heading[1]
        elif owner and (entry := re.match(r"\s+0x[0-9a-f]+ 0x[0-9a-f]+ \d+ (\S+)", line)):
            owners[entry[1]] = owner
    return owners


def names(library: pathlib.Path, which: str) -> list[str]:
    lines = run("nm", "--dynamic", which, library).splitlines()
    # A weak symbol may stay undefined.
    return [line.split()[-1] for line in lines if line.split()[-2] not in ("w", "v")]


def write_stub(path: pathlib.Path, versioned: dict[str, set[str]], plain: set[str]) -> None:
    symbols = sorted(plain.union(*versioned.values()))
    source = "".join(f"void {symbol}(void) {{ __builtin_trap(); }}\n" for symbol in symbols)
    command = ["cc", "-x", "c", "-w", "-shared", "-fPIC", "-fno-builtin", "-o", path, "-"]
    command.append(f"-Wl,-soname,{path.name}")
    if versioned:
        script = path.with_suffix(".versions")
        script.write_text(
            "".join(f"{version} {{ global: {'; '.join(sorted(of))}; }};\n" for version, of in versioned.items())
        )
        command.append(f"-Wl,--version-script={script}")
    subprocess.run(command, input=source, text=True, check=True)
    if versioned:
        script.unlink()


def run(*command: object) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
