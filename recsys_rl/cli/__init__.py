"""The command `recsys-rl`, with one file per subcommand. Options are fields of the settings' dataclasses."""

from __future__ import annotations

import errno
import importlib
import os
import sys

from recsys_rl.errors import FieldError, UserError, error_text, one_line
from recsys_rl.settings.fields import did_you_mean
from recsys_rl.version import __version__

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a standard output that can't be written."""

COMMANDS = (
    *("train", "evaluate", "recommend", "serve", "items", "visitors", "log", "loop", "release", "retrain"),
    *("gate", "export", "record", "ope", "fit-users", "ranking", "data", "doctor"),
)

OVERVIEW = """usage: recsys-rl [--version] [--help] COMMAND [OPTIONS]

Reinforcement learning for recommender systems.

commands:
  train      train PPO, A2C or DQN on simulated users made from real ratings, or a policy from a log
  evaluate   compare the policy of a checkpoint with baselines, on held-out users
  recommend  print or write recommendations of a checkpoint's policy for real people
  serve      serve the policy over HTTP, and write down every decision with its probability
  items      let the items of a running server come, change and go
  visitors   let simulated people use a running server
  log        check the record of a server, export it as a log of decisions, or delete a user in it
  loop       one turn beside a running server: learn, judge, release or take back
  release    let a challenger answer a share of a running server's sessions, promote it, take it back
  retrain    learn candidates from what the server recorded
  gate       judge a candidate on held-out users of the record, before it may serve
  export     write the scores of a policy as an ONNX file, for a server in another language
  record     record decisions of a policy on simulated users, with their probabilities
  ope        estimate from a log of decisions the return that a policy would have earned
  fit-users  learn users from a log of decisions, to train policies in
  ranking    print NDCG, recall and other ranking metrics on a held-out log
  data       describe a log file, or compare two
  doctor     print what is installed here, to paste into an issue

`recsys-rl COMMAND --help` lists the options (of train the main ones: --help-all lists all);
`python -m recsys_rl COMMAND` is the same."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit code: 0, 2 for a mistake, 130 after Ctrl-C, or that of logs/ope/verdict.py."""
    code = _run(sys.argv[1:] if argv is None else argv)
    return code if _flushed() else 2


def _run(argv: list[str]) -> int:
    try:
        return _dispatch(argv)
    except UserError as error:
        said = _as_typed(error, argv) if isinstance(error, FieldError) else error
        print(f"error: {one_line(said)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):  # torch's text
            raise
        print("error: the memory of this machine is too small: use smaller settings.", file=sys.stderr)
        return 2
    except SystemExit as stop:  # tyro has printed its help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has closed the pipe; the rest of the output is dropped
        _drop_output()
        return 1
    except OSError as error:
        if error.filename is not None or error.errno not in NO_ROOM:
            raise
        return _no_room(error)


def _flushed() -> bool:
    """Flush standard output; if that fails, print one sentence. At the exit of Python it were a traceback."""
    try:
        if sys.stdout is not None:  # None: it was closed before the start
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        _no_room(error)
        return False
    return True


def _no_room(error: OSError) -> int:
    """Print the sentence about an output that can't be written, drop the rest, and return the exit code.

    Files that a command writes have errors of their own; this is standard output, as in ``> /dev/full``.
    """
    _drop_output()
    why = error_text(error)
    print(f"error: the output can't be written ({why}): make room, or send it elsewhere.", file=sys.stderr)
    return 2


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
        command = importlib.import_module(f"recsys_rl.cli.{first.replace('-', '_')}")
        return command.run(argv[1:]) or 0
    else:
        hint = f"{did_you_mean(first, COMMANDS)}: choose from {', '.join(COMMANDS)}"
        raise UserError(f"There is no command {first!r}{hint}.")
    return 0
