"""The console script `lerobot-wam`: finds the verb, runs it, and turns bad input into one readable line.

A verb is a file of this folder with `HELP` (one line), `add_arguments(parser)` and `run(args) -> int`; with
`PASSES_ON = True` it finds arguments that are not its own in `args.passed_on`. It imports heavy libraries inside `run`
only, so that help is shown at once. The verb is the file name's first word: `import` is a word
that Python keeps for itself, so its file has two.
"""

import argparse
import logging
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

BAD_INPUT, INTERRUPTED = 2, 130
_MESSAGE_LINES = 2
EXTRAS = {"msgpack": "serve", "websockets": "serve", "prometheus_client": "serve"}
"""Modules that only some verbs need, and the extra that installs each."""


def verbs() -> dict[str, str]:
    """The verbs and their modules: the files beside this one."""
    files = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name != "main")
    return {name.partition("_")[0]: f"lerobot_wam.cli.{name}" for name in files}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lerobot-wam` and return its exit code: 2 for bad input, 130 after Ctrl-C.

    Args:
        argv: Arguments after the program's name; None takes the process's.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Only the verb asked for is imported; all of them for the overview.
    known = verbs()
    asked = {words[0]: known[words[0]]} if words and words[0] in known else known
    parser = _parser({verb: import_module(module) for verb, module in asked.items()})
    args, passed_on = parser.parse_known_args(words)
    if passed_on and not args.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(passed_on)}")
    args.passed_on = passed_on
    # Without the system's FFmpeg, LeRobot logs an eighty-line traceback for each dataset and goes on with PyAV.
    logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if args.debug:
            raise
        if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
            error.msg += f": pip install 'lerobot_policy_wam[{EXTRAS[error.name]}]'"
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        print("error:", "\n  ".join(lines[:_MESSAGE_LINES]), file=sys.stderr)
        return BAD_INPUT


def _parser(modules: dict[str, ModuleType]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lerobot-wam",
        description="World action models for LeRobot: one network that dreams video and acts. Training and evaluation "
        "are LeRobot's own: lerobot-train and lerobot-eval with --policy.type=wam.",
        epilog="lerobot-wam VERB --help explains a verb.",
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    for name, module in modules.items():
        verb = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(verb)
        verb.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
        verb.set_defaults(run=module.run, passes_on=getattr(module, "PASSES_ON", False))
    return parser


if __name__ == "__main__":
    sys.exit(main())
