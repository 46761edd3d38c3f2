"""`recsys-rl export`."""

from __future__ import annotations

from recsys_rl.cli.extras import need
from recsys_rl.cli.parse import latest_checkpoint, parse
from recsys_rl.recommender.export import ExportConfig, export

TEXT = """Write the scores of a policy as an ONNX file, for a server in another language, and the vectors
of its items and users as a file of NumPy.

Examples:
  recsys-rl export --onnx policy.onnx                                  the latest policy
  recsys-rl export --checkpoint runs/first/ppo.pt --onnx policy.onnx
  recsys-rl export --vectors vectors.npz

The file is compared with the policy before it is written. docs/10_serving.md describes its inputs and has
examples."""


def run(argv: list[str]) -> None:
    options = export_options(argv)
    if options.onnx is not None:
        need("export")
    export(options)


def export_options(argv: list[str]) -> ExportConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    default = ExportConfig(checkpoint=latest_checkpoint(argv))
    return parse(ExportConfig, default, argv, "recsys-rl export", TEXT)
