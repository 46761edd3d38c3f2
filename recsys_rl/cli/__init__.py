"""The command `recsys-rl`, one file per verb. Options are the fields of the settings' dataclasses."""

from __future__ import annotations

import importlib
import os
import sys

from recsys_rl import __version__
from recsys_rl.errors import FieldError, UserError, one_line
from recsys_rl.schema import did_you_mean

COMMANDS = ("train", "evaluate")

OVERVIEW = """usage: recsys-rl [--version] [--help] COMMAND [OPTIONS]

Reinforcement learning for recommender systems.

commands:
  train      train PPO or A2C on simulated users made from real ratings
  evaluate   play a checkpoint's policy with held-out users, beside the baselines

`recsys-rl COMMAND --help` lists the options; from a checkout, `python -m COMMAND` is the same."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit code is 0, 2 for a user's mistake, or 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(argv)
    except UserError as error:
        said = _as_typed(error, argv) if isinstance(error, FieldError) else error
        print(f"error: {one_line(said)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "alloc" not in str(error) and "memory" not in str(error):
            raise
        print(
            "error: the memory of this machine does not hold it: lower the sizes asked for.", file=sys.stderr
        )
        return 2
    except SystemExit as stop:  # tyro has printed its help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has read enough; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _as_typed(error: FieldError, argv: list[str]) -> str:
    """The complaint by the option's name; by the field's where it isn't typed and there is a --config."""
    typed = {word.partition("=")[0].replace("_", "-").replace("--no-", "--") for word in argv}
    if "--config" in typed and error.option not in typed:
        return str(error)
    return f"{error.option} {error.complaint}"


def _dispatch(argv: list[str]) -> int:
    first = argv[0] if argv else "--help"
    if first in ("-h", "--help"):
        print(OVERVIEW)
    elif first == "--version":
        print(f"recsys-rl {__version__}")
    elif first in COMMANDS:
        command = importlib.import_module(f"recsys_rl.cli.{first}")
        command.run(argv[1:])
    else:
        near = did_you_mean(first, COMMANDS)
        raise UserError(f"There is no command {first!r}{near}: choose from {', '.join(COMMANDS)}.")
    return 0
