"""Extras: packages that only some commands need."""

from __future__ import annotations

from importlib.util import find_spec

from recsys_rl.errors import UserError

PACKAGES = {
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "serve": ("httptools", "msgspec", "prometheus_client", "starlette", "uvicorn", "uvloop"),
}


def need(extra: str) -> None:
    """Raise UserError, in one sentence, if a package of the extra is missing."""
    missing = [package for package in PACKAGES[extra] if find_spec(package) is None]
    if missing:
        raise UserError(
            f"This command needs packages that are not installed ({', '.join(missing)}): "
            f"pip install 'recsys-rl[{extra}]', or pip install -e '.[{extra}]' in the checkout."
        )
