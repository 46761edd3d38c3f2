"""The settings of `recsys-rl ope`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Literal

from recsys_rl.data.tables.columns import DecisionFile, log_name
from recsys_rl.evaluation.policies import check_once
from recsys_rl.logs.ope.result import LOGGED
from recsys_rl.settings.fields import Count, Range, Share, check_fields
from recsys_rl.settings.names import platform_of
from recsys_rl.settings.shared import Seed
from recsys_rl.types import UserError

TARGET = "target"
"""Name in --compare of the policy of --target; LOGGED is what the log's own policies earned."""


@dataclass(frozen=True)
class OpeConfig(DecisionFile):
    """One evaluation of policies on a log of decisions."""

    log: tuple[str, ...] = ()
    """The decisions: a file of recsys-rl record, your own text, JSON lines or Parquet with named columns,
    dsjson of Vowpal Wabbit, or a public log: open-bandit, kuairand-random. Of your own tables --log may be
    repeated."""
    data_dir: str | None = None
    """Folder of the public log's own files. open-bandit takes the dataset's folder, or that of one log of it,
    as bts/men. Without it, kuairand-random is downloaded (47 MB)."""
    checkpoint: str | None = None
    """The file with the policy and the catalogue (default: checkpoints/ppo.pt, for a log of recsys-rl
    record). Your own log needs none; with the checkpoint of a policy that was trained on such a log, it is
    read as in training, and the policy is judged on what it did not learn from (--users)."""
    env: str | None = None
    """Environment of the checkpoint. Required if its name holds a module to import."""
    policy: tuple[str, ...] = ()
    """Row of the evaluation table to judge: ppo, ppo-greedy, random, popularity ..., or the file of a
    further checkpoint, whose policy is sampled (default: the checkpoint's own policy, sampled). Of your own
    log without a checkpoint: random."""
    compare: tuple[str, str] | None = None
    """Two policies or files of checkpoints, as new.pt old.pt: their difference on the same sessions, which
    holds however often you look, and how many more rows settle it. `target` is that of --target, and `logged`
    what the log itself earned."""
    verdict: str | None = None
    """A policy to give a verdict on, against the other one of --compare, or without it against what the log
    earned. The exit code is 0 for better, 3 for worse, 4 for can't tell, 5 for a broken log."""
    users: Literal["all", "heldout"] = "all"
    """The users to judge on: heldout are those whom the training of every given checkpoint did not see. The
    checkpoint of a policy of your own tables is judged on these, and on all users in sessions that began
    after its log ended; with heldout, on these alone."""
    since: str | None = None
    """Judge later sessions only: those that began at this time, a date or a number in the log's unit."""
    logger: tuple[str, ...] = ()
    """Further checkpoints, whose policies made the log of recsys-rl record: an older model, for instance.
    Some estimators need the logger's probability of other items than the logged ones."""
    target: str | None = None
    """CSV or Parquet file with the probabilities of another policy: session, step, propensity."""
    items: str | None = None
    """File about the items of your own log: id, genres, and any other column. With --checkpoint: new items,
    which its policy then knows by their features."""
    json: str | None = None
    """Write all estimates to this file."""
    discount: Share = 1.0
    """Discount per step. 1 gives the sum of a session's rewards, as the table of recsys-rl evaluate does. The
    output names the discount with which the log's policy learned, if it is another."""
    weights: tuple[str, ...] = ()
    """Weights of reward streams as NAME=NUMBER (default: the platform's)."""
    q: Literal["ridge", "logistic", "mlp"] = "ridge"
    """Regression of the reward model. logistic is for rewards in 0..1, in sessions of one step; on rare
    clicks, dm is too high with ridge."""
    world: bool = True
    """Estimate also by a learned one-step model in which the policy is played."""
    draws: Count = 8
    """Actions drawn from the policy for each row, over which its values are averaged. Without effect for
    single items if rows times items is at most 1,000,000: there the average is over every item, exact."""
    clusters: Annotated[int, Range(2, 10**6)] | None = None
    """Clusters of items for mips and offcem, by k-means of the embeddings (default: the square root of the
    number of items)."""
    seed: Seed = 0
    """The seed of folds, draws and models."""
    threads: Annotated[int, Range(0, 1024)] = 1
    """Threads of torch; 0 = torch's choice."""
    cache_dir: str | None = None
    """Folder for downloads, and for the results of the searches of `rule` and `searched` (default: the user's
    cache folder)."""

    def __post_init__(self) -> None:
        for name in ("log", "policy", "logger", "weights"):
            value = getattr(self, name)
            if isinstance(value, str | PurePath) or value is None:  # one
                object.__setattr__(self, name, () if value is None else (str(value),))
        check_fields(self)
        if self.checkpoint is None and self.versions:  # the first one brings the items
            object.__setattr__(self, "checkpoint", self.versions[0])
        if self.env is not None:
            platform_of(self.env)
        check_once(self.policy)
        if self.compare is not None and self.compare[0] == self.compare[1]:
            raise UserError("--compare needs two different policies.")
        if self.compare is not None and TARGET in self.compare and self.target is None:
            raise UserError("--compare target is the policy of --target: give --target FILE.")
        if self.verdict == LOGGED:
            raise UserError("--verdict is on a policy, against what the log earned: name another one.")
        if self.verdict == TARGET and self.target is None:
            raise UserError("--verdict target is on the policy of --target: give --target FILE.")

    @property
    def source(self) -> str:
        """The log as one text for people: the name of a public log, the path of a file, or several."""
        return " + ".join(map(log_name, self.log))

    @property
    def names(self) -> list[str]:
        """The names given to --policy, --compare and --verdict, each once."""
        verdict = () if self.verdict is None else (self.verdict,)
        return list(dict.fromkeys([*self.policy, *(self.compare or ()), *verdict]))

    @property
    def versions(self) -> list[str]:
        """The names that are files of checkpoints."""
        return [name for name in self.names if PurePath(name).suffix == ".pt"]

    @property
    def rival(self) -> str:
        """The policy that the one of --verdict is judged against."""
        if self.compare is not None and self.verdict in self.compare:
            return self.compare[self.verdict == self.compare[0]]
        return LOGGED

    @property
    def table_policies(self) -> list[str]:
        """The policies of ``names``, without the names of other things."""
        return [name for name in self.names if name not in (LOGGED, TARGET)]
