"""LeRobot's commands as typed, in this process."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import pytest
from accelerate.state import AcceleratorState


def run(program: str, *words: str) -> None:
    """What typing the command does, but for LeRobot's hold on this process's log and signals."""
    with in_process(program) as module, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *words])
        module.main()


@contextmanager
def in_process(program: str) -> Iterator[ModuleType]:
    """Keep a program of LeRobot's from taking hold of them, whoever starts it; gives its module."""
    module = import_module(f"lerobot.scripts.{program.replace('-', '_')}")
    level = logging.getLogger().level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "init_logging", lambda *args, **kwargs: logging.getLogger().setLevel(logging.INFO))
        patch.setattr(signal, "signal", lambda *args: None)
        AcceleratorState._reset_state(reset_partial_state=True)
        try:
            yield module
        finally:
            logging.getLogger().setLevel(level)
