"""What a measurement was made on: machine and versions, without names of hosts, people or folders."""

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MACHINE = ("Processor", "Cores", "Memory", "Accelerator", "System")
"""What of `environment()` describes the machine; the rest are versions."""
PACKAGES = ("lerobot_policy_wam", "lerobot", "torch", "numpy", "mujoco")


def environment() -> dict[str, str]:
    """Return processor, cores, memory, accelerator, operating system and versions, each in a few words."""
    import torch  # not at the top: a page of plain numbers needs no torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {
        "Processor": _processor(),
        "Cores": f"{cores} usable, {torch.get_num_threads()} used by torch",
        "Memory": _memory(),
        "Accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "System": f"{_system()} ({platform.machine()})",
        "Python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def described(found: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return what `environment` found as a result tells it: the machine, and the versions."""
    return {
        "machine": {name.lower(): found[name] for name in MACHINE},
        "versions": {name.lower(): value for name, value in found.items() if name not in MACHINE},
    }


def _processor() -> str:
    """The processor's name; its architecture where the system does not tell.

    With family and model, which some names keep to themselves: other instructions round otherwise, so a training
    repeats to the last bit on a processor of the same kind only.
    """
    info = Path("/proc/cpuinfo")
    if info.is_file():
        first, *_ = info.read_text().split("\n\n")
        fields = dict(re.findall(r"^(.+?)\s*: (.+)$", first, re.MULTILINE))
        if "model name" in fields:
            kind = [f"{name.removeprefix('cpu ')} {fields[name]}" for name in ("cpu family", "model") if name in fields]
            return ", ".join([fields["model name"].strip(), *kind])
    return platform.processor() or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:  # not Linux
        return f"{platform.system()} {platform.release()}"


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
