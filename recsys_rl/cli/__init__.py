"""The command `recsys-rl`, with one file per subcommand. Options are fields of the settings' dataclasses."""

from __future__ import annotations

import importlib
import os
import sys

from recsys_rl import __version__
from recsys_rl.cli.names import check_names
from recsys_rl.errors import FieldError, UserError, one_line
from recsys_rl.schema import did_you_mean

COMMANDS = ("train", "evaluate", "recommend", "record", "ope", "ranking", "data")

OVERVIEW = """usage: recsys-rl [--version] [--help] COMMAND [OPTIONS]

Reinforcement learning for recommender systems.

commands:
  train      train PPO or A2C on simulated users made from real ratings
  evaluate   compare the policy of a checkpoint with baselines, on held-out users
  recommend  print or write recommendations of a checkpoint's policy for real people
  record     record decisions of a policy on simulated users, with their probabilities
  ope        estimate from a log of decisions the return that a policy would have earned
  ranking    print NDCG, recall and other ranking metrics on a held-out log
  data       describe a log file, or split it in two by time or by user

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
        print("error: the memory of this machine is too small: use smaller settings.", file=sys.stderr)
        return 2
    except SystemExit as stop:  # tyro has printed its help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has closed the pipe; the rest of the output is dropped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _as_typed(error: FieldError, argv: list[str]) -> str:
    """The error with the name of the option, or of the field if it comes from the file of --config."""
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
        check_names(first, argv[1:])
        command = importlib.import_module(f"recsys_rl.cli.{first}")
        command.run(argv[1:])
    else:
        near = did_you_mean(first, COMMANDS)
        raise UserError(f"There is no command {first!r}{near}: choose from {', '.join(COMMANDS)}.")
    return 0
