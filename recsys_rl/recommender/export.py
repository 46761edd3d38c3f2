"""Write the scores of a policy as an ONNX file that was compared with it.

``--vectors`` writes what the policy knows of items and users (export_vectors.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recsys_rl.checkpoint import Checkpoint, check_algo
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.errors import one_line
from recsys_rl.make import make_env
from recsys_rl.models.heads import GatedHead, PatternHead
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.q_network import ConstrainedQNetwork
from recsys_rl.recommender import Recommender
from recsys_rl.recommender.contexts import pieces_of
from recsys_rl.recommender.drawn import drawn_visits
from recsys_rl.recommender.export_vectors import check_vectors, file_of_vectors
from recsys_rl.settings.fields import check_fields
from recsys_rl.settings.names import DEFAULT_ALGO, algorithm_of, platform_of
from recsys_rl.training.latest import print_latest
from recsys_rl.types import Interface, Obs, UserError
from recsys_rl.utils.files import check_writable, write_bytes
from recsys_rl.utils.seeding import generators

OBSERVATIONS = 1000  # on which file and policy are compared
TOGETHER = 50  # sessions that are played for them
BATCHES = (1, 8, OBSERVATIONS - 9)  # sizes of the batches of the comparison
TOLERANCE = 1e-5  # largest difference of a score, as a share of the row's largest score if that is above 1
TRACED = 8  # observations of the trace
MOST_BYTES = 1_900_000_000  # an ONNX file is a protobuf message, which ends at 2 GiB


@dataclass(frozen=True)
class ExportConfig:
    """One export of a policy."""

    checkpoint: str = f"checkpoints/{DEFAULT_ALGO}.pt"
    """The file with the policy."""
    env: str | None = None
    """Environment of the checkpoint. Required if its name holds a module to import."""
    algo: str | None = None
    """Reject a checkpoint of another algorithm. Required if its name holds a module to import."""
    onnx: str | None = None
    """The ONNX file to write; its metadata say what its inputs hold (docs/10_serving.md)."""
    vectors: str | None = None
    """The .npz file to write with the vectors of items and users, and what a new user's vector is made of."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.env is not None:
            platform_of(self.env)
        if self.algo is not None:
            algorithm_of(self.algo, typed=True)


class Scores(nn.Module):
    """The policy's scores (N, I) from the tensors of an observation, without exclusions, ratio and chance."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, context: Tensor, history: Tensor | None = None, signals: Tensor | None = None
    ) -> Tensor:
        if history is not None and signals is None:  # a platform without visible signals
            signals = context.new_zeros(*history.shape, 0)
        return _of_first_place(self.model(Obs(context, history, signals))[0].logits)


def _of_first_place(logits: Tensor) -> Tensor:
    return logits if logits.ndim == 2 else logits[:, 0]


def export(options: ExportConfig) -> None:
    """Write the ONNX file, the file of vectors, or both.

    Raises UserError for a checkpoint whose policy has no scores of that form, if torch can't translate it, if
    the file's scores differ from the policy's, and if a file can't be written. Nothing is written then, but
    for the first files where the disk fails at a later one.
    """
    if options.onnx is None and options.vectors is None:
        raise UserError("The file to write is missing: give --onnx FILE.onnx, --vectors FILE.npz, or both.")
    onnx, vectors = (None if name is None else Path(name) for name in (options.onnx, options.vectors))
    if onnx is not None:
        _check_onnx(onnx)
    if vectors is not None:
        check_vectors(vectors)
    checkpoint = load_at_home(options.checkpoint, options.env)
    if options.algo is not None:
        check_algo(Path(options.checkpoint), checkpoint, options.algo)
    name = one_line(options.checkpoint)
    if checkpoint.world.is_empty:
        raise UserError(
            f"{name} is of {checkpoint.config.env}, which has no catalogue of items to score: export a "
            "policy of a platform with items."
        )
    agent = None if onnx is None else _agent(name, checkpoint)
    print_latest(options.checkpoint, checkpoint)
    files: dict[Path, bytes] = {}
    said = []
    if onnx is not None and agent is not None:
        files[onnx], text = _onnx(onnx, checkpoint, agent)
        said.append(text)
    if vectors is not None:
        files[vectors] = file_of_vectors(checkpoint.world)
        items, users = checkpoint.catalogue.num_items, len(checkpoint.world.population.user_ids)
        said.append(f"{vectors}: vectors of {items:,} items and {users:,} users")
    for path, content in files.items():
        write_bytes(path, content)
    print(*said, sep="\n", file=sys.stderr)


def _check_onnx(path: Path) -> None:
    """Raise UserError unless an ONNX file can be written to ``path``."""
    if path.suffix.lower() != ".onnx":
        raise UserError(f"--onnx {path} is to be an ONNX file: end its name with .onnx.")
    check_writable(path, "--onnx")


def _onnx(path: Path, checkpoint: Checkpoint, agent: NetworkPolicy[Any]) -> tuple[bytes, str]:
    """The file that was compared with the policy, and a line on it."""
    obs = _observations(checkpoint, agent)
    inputs = _inputs(obs, checkpoint.interface)
    content = _translated(agent, inputs, checkpoint)
    with torch.inference_mode():
        distribution, _ = agent.model(obs)
    difference = _compare(content, inputs, _of_first_place(distribution.logits))
    return content, (
        f"{path}: scores of {checkpoint.catalogue.num_items:,} items, as the policy's on {OBSERVATIONS:,} "
        f"observations (largest difference {difference:.1e})"
    )


def _agent(name: str, checkpoint: Checkpoint) -> NetworkPolicy[Any]:
    """The policy. Raises UserError if its scores depend on more than context and history."""
    agent = Recommender(checkpoint).agent
    if not isinstance(agent, NetworkPolicy):
        raise UserError(
            f"{name} is of {checkpoint.config.algo}, whose policy is not a network of this package: export "
            "that of another algorithm."
        )
    if agent.first_stage is not None:
        raise UserError(
            f"{name} has a first stage, which searches the candidates in an index, and ONNX holds no index: "
            "export a policy that was trained without --candidates."
        )
    gated = isinstance(agent.model.head, GatedHead | PatternHead)
    if gated or isinstance(agent.model, ConstrainedQNetwork):
        what = "the gated head" if gated else checkpoint.config.algo
        raise UserError(
            f"{name} is of {what}, whose score of an item depends on which other items may be shown: "
            "export a policy of another head or algorithm."
        )
    if sum(tensor.nbytes for tensor in {*agent.model.parameters(), *agent.model.buffers()}) > MOST_BYTES:
        raise UserError(f"{name} has weights and items of more than 1.9 GB, the most that ONNX holds.")
    return agent


def _observations(checkpoint: Checkpoint, agent: NetworkPolicy[Any]) -> Obs:
    """OBSERVATIONS of the platform's users while the policy acts, without what may not be shown.

    Those of a platform without a simulator have contexts and signals that are drawn.
    """
    stream = generators(0, "evaluation users")["evaluation users"]
    if not checkpoint.config.platform.simulates:
        return _joined(
            list(islice(drawn_visits(checkpoint, agent, TOGETHER, stream), OBSERVATIONS // TOGETHER))
        )
    env = make_env(checkpoint.config, checkpoint.world, TOGETHER, stream)
    known, here = checkpoint.interface, env.interface
    if (known.context, known.history_length, known.signals) != (
        here.context,
        here.history_length,
        here.signals,
    ):
        raise UserError(
            f"The policy learned from a log with other observations than those of {checkpoint.config.env}, "
            "on which the file would be checked: export a policy that was trained on the platform."
        )
    obs, seen = env.reset(), []
    for _ in range(OBSERVATIONS // TOGETHER):
        seen.append(Obs(obs.context, obs.history, obs.signals).map(torch.clone))
        obs = env.step(agent.act(obs).items).obs
    return _joined(seen)


def _joined(seen: Sequence[Obs]) -> Obs:
    """The rows of several observations, without what may not be shown."""
    names = [name for name in ("context", "history", "signals") if getattr(seen[0], name) is not None]
    return Obs(**{name: torch.cat([getattr(obs, name) for obs in seen]) for name in names})


def _inputs(obs: Obs, interface: Interface) -> dict[str, Tensor]:
    """The inputs of the file, by name: those parts of the observation that the policy reads."""
    inputs = {"context": obs.context}
    if obs.history is not None:
        inputs["history"] = obs.history
        if obs.signals is not None and interface.signals:
            inputs["signals"] = obs.signals
    return inputs


def _translated(agent: NetworkPolicy[Any], inputs: dict[str, Tensor], checkpoint: Checkpoint) -> bytes:
    """The ONNX file, with what a caller must know in its metadata."""
    rows = torch.export.Dim("batch")
    try:
        with _silent(), torch.no_grad():
            program = torch.onnx.export(
                Scores(agent.model).eval(),
                tuple(values[:TRACED] for values in inputs.values()),
                dynamo=True,
                input_names=[*inputs],
                output_names=["scores"],
                dynamic_shapes=tuple({0: rows} for _ in inputs),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(
            f"The policy can't be translated to ONNX ({one_line(str(error))[:200]}): its network does what "
            "torch.onnx.export has no words for."
        ) from error
    assert program is not None
    for name, facts in _metadata(checkpoint).items():
        program.model.metadata_props[name] = json.dumps(facts)
    content: bytes = program.model_proto.SerializeToString()
    return content


def _metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """The ids of the items, the rows of those that aren't available, what the inputs hold, and how it draws.

    For a policy of a team's own log also the encodings of the pieces of the context: the first column of
    each, ``start``, and the fields of ``tables.pieces.Piece``.
    """
    catalogue, interface, pieces = checkpoint.catalogue, checkpoint.interface, pieces_of(checkpoint)
    facts = {
        "item_ids": [*catalogue.item_names] or catalogue.item_ids.tolist(),
        "unavailable": (~catalogue.available).nonzero().flatten().tolist(),
        "interface": {
            "context": dict(interface.context),
            "signals": interface.signals,
            "slate_size": interface.slate_size,
            "repeats": interface.repeats,
            "session_length": interface.session_length,
        },
        "ratio": float(checkpoint.agent.get("draw_ratio", 1.0)),
        "chance": float(checkpoint.agent.get("chance", 0.0)),
    }
    if pieces is None:
        return facts
    starts = dict(zip(dict(interface.context), interface.starts, strict=True))
    encodings = [{"start": starts[piece.name], **dataclasses.asdict(piece)} for piece in pieces]
    return {**facts, "context_pieces": encodings}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the lines that torch and onnxscript print about their own work."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _compare(content: bytes, inputs: dict[str, Tensor], expected: Tensor) -> float:
    """The largest difference between the file's scores and the ``expected`` (N, I), in batches of BATCHES.

    It is a share of the row's largest score if that is above 1. Raises UserError above TOLERANCE.
    """
    import onnxruntime

    parts = zip(*(values.split(BATCHES) for values in inputs.values()), strict=True)
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        scores = [
            session.run(
                ["scores"], {name: values.numpy() for name, values in zip(inputs, batch, strict=True)}
            )[0]
            for batch in parts
        ]
    except Exception as error:  # those of onnxruntime have no other common class
        raise UserError(
            f"ONNX Runtime can't run the translated policy ({one_line(str(error))[:200]}), so it isn't "
            "written: try another version of torch or onnxruntime."
        ) from error
    wanted = expected.numpy()
    size = np.abs(wanted).max(1, keepdims=True).clip(1)
    difference = float((np.abs(np.concatenate(scores) - wanted) / size).max())
    if not difference <= TOLERANCE:  # also for NaN
        raise UserError(
            f"The scores of the ONNX file differ from the policy's by {difference:.1e}, more than "
            f"{TOLERANCE:g}, so it isn't written: try another version of torch or onnxruntime."
        )
    return difference
