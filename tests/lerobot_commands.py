"""LeRobot's commands as typed, in this process."""

import logging
import signal
import sys
from importlib import import_module

import pytest
from accelerate.state import AcceleratorState


def run(program: str, *words: str) -> None:
    """What typing the command does, but for LeRobot's hold on this process's log and signals."""
    module = import_module(f"lerobot.scripts.{program.replace('-', '_')}")
    level = logging.getLogger().level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "init_logging", lambda *args, **kwargs: logging.getLogger().setLevel(logging.INFO))
        patch.setattr(signal, "signal", lambda *args: None)
        patch.setattr(sys, "argv", [program, *words])
        AcceleratorState._reset_state(reset_partial_state=True)
        try:
            module.main()
        finally:
            logging.getLogger().setLevel(level)
