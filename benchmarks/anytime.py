"""How often is somebody wrong who looks at a log after each row, and how long must they wait for an answer?

    python -m benchmarks.anytime [--only logs aa effects] [--runs 400]

`logs`: a log of 20,000 single decisions by a uniform policy, and a policy that earns as much: how many of the
runs ever say "different", from the 100th row on. By a t-interval, by the centred asymptotic sequence (at
once, and as `ope` answers, from 200 effective rows on), and by the empirical Bernstein sequence, all of
doubly robust terms. Light weights are .5 and 1.5; heavy ones are 20 for one item and 0 for the others.
`width` is that of the last interval, in t-intervals.

`aa`: two equal arms on returning users, 10,000 sessions, a look after each. Returns are those of `satiation`:
a mean of 8.5, a variance of 2.5 within a user and of 11.7 between users, within [0, 20]. Arms are drawn for
each session, or for each user, and the terms are those of `recsys_rl.logs.ope.anytime`. With arms of
sessions, each is centred by the user's earlier ones, also of the 4,000 in the record. With arms of users, the
first session of each user counts, centred by the record's; the other rows count in other ways, to show what
they do. `canary` is that of a server (`recsys_rl.serving.releases.canary.Canary`) with all that may stop a
release, also its guardrails, asked after each 25 sessions. In both arms 1 % of the decisions are made by
popularity, a tenth of the users leave early, and the shown items are drawn by one popularity.

`effects`: the same with a challenger that is better or worse: the sessions of both arms until an answer, and
how often it comes within 2,000 and 10,000 sessions.

Everything is drawn by the run's number. Rows are appended to benchmarks/results/anytime.csv.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import newest, tables
from benchmarks.harness.bernstein import empirical_bernstein
from benchmarks.harness.turns import Row
from recsys_rl.logs.ope.anytime import arm_terms, asymptotic, centred
from recsys_rl.logs.ope.diagnostics import FEW
from recsys_rl.serving.record.record_schema import Unit
from recsys_rl.serving.releases.canary import Canary, CanarySettings
from recsys_rl.serving.releases.outcomes import Outcome

ALPHA, FIRST = 0.05, 100  # the first look of the t-interval is that of the asymptotic sequence
MEAN, WITHIN, BETWEEN, MOST = 8.5, 2.5, 11.7, 20.0  # returns of `satiation`
USERS, RECORD = 1_500, 4_000  # people, and their sessions before the release
EVERY = 25  # sessions between looks of the canary, whose answers stay
SHARES, EFFECTS = (0.1, 0.5), (0.2, 0.05, -0.1)
CLICKS = 0.1
UNITS: tuple[Unit, ...] = ("session", "user")
Sides = tuple[Tensor, Tensor]  # (n,) bool each: the mean is surely higher, or surely lower, at each look


def main() -> None:
    parser = tables.parser(__doc__, "runs", 400)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART")
    args = tables.parse(parser, "anytime")
    size = Size(2, 1_000, 1_000) if args.smoke else Size(args.runs)
    rows: list[Row] = []
    for name in args.only:
        rows += PARTS[name](size)
        print(f"{name}: done", file=sys.stderr, flush=True)
    tables.publish(rows, args)


@dataclass(frozen=True)
class Size:
    """The size of a benchmark."""

    runs: int
    log: int = 20_000
    sessions: int = 10_000


def generator_of(run: int) -> torch.Generator:
    return torch.Generator().manual_seed(run)


def t_interval(terms: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) each: the interval of a reader who knows of no others; nothing before FIRST terms."""
    count = torch.arange(1, len(terms) + 1, dtype=torch.float64)
    mean = terms.cumsum(0) / count
    variance = (terms.square().cumsum(0) / count - mean.square()).clamp(min=0)
    half = torch.where(count < FIRST, torch.inf, 1.96 * (variance / count).sqrt())
    return mean - half, mean + half


def sides(low: Tensor, high: Tensor) -> Sides:
    return low > 0, high < 0


# one-step logs


def logs(size: Size) -> list[Row]:
    rows: list[Row] = []
    for weights, policy in (("light", light), ("heavy", heavy)):
        wrong: dict[str, list[bool]] = defaultdict(list)
        widths: dict[str, list[float]] = defaultdict(list)
        for run in range(size.runs):
            of = policy(size.log, generator_of(run))
            terms = of.terms()
            sequence = asymptotic(terms, ALPHA)
            found = {
                "t": t_interval(terms),
                "asymptotic": sequence,
                "asymptotic, enough": of.with_enough(*sequence),
                "bernstein": empirical_bernstein(of.terms(1 / of.largest), *of.bounds, ALPHA),
            }
            plain = float(found["t"][1][-1] - found["t"][0][-1])
            for bound, (low, high) in found.items():
                wrong[bound].append(bool(((low > 0) | (high < 0)).any()))
                widths[bound].append(float(high[-1] - low[-1]) / plain)
        rows += [
            {
                "part": "logs",
                "weights": weights,
                "bound": bound,
                "runs": size.runs,
                "rows": size.log,
                "wrong": statistics.mean(wrong[bound]),
                "width": statistics.mean(widths[bound]),
            }
            for bound in wrong
        ]
    return rows


@dataclass(frozen=True)
class Decisions:
    """The rows of a uniform logger in the order of time, and a policy by its weights."""

    weights: Tensor  # (I,) of the items
    items: Tensor  # (n,) int64
    clicked: Tensor  # (n,)
    rates: Tensor  # (n, I): the click rate of each item in the rows before

    @property
    def largest(self) -> float:
        return float(self.weights.max())

    def terms(self, most: float = 1.0) -> Tensor:
        """(n,): doubly robust terms of the policy minus the logger, of rates of at most ``most``::

        x_i = sum_a (pi(a) - 1 / I) q_i(a) + (w_i - 1) (r_i - q_i(a_i))
        """
        rates = self.rates.clamp(max=most)
        direct = rates @ ((self.weights - 1) / len(self.weights))
        of_item = rates.gather(1, self.items[:, None])[:, 0]
        return direct + (self.weights[self.items] - 1) * (self.clicked - of_item)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the terms with rates of at most 1 / (the largest weight): the lower one is near (2210.10768)."""
        return -1 - 1 / self.largest, max(1.0, self.largest - 1) + 1 / self.largest

    def with_enough(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The ends after at least FEW effective rows, as in `ope`; infinite before."""
        weights = self.weights[self.items]
        few = weights.cumsum(0).square() / weights.square().cumsum(0).clamp(min=1e-9) < FEW
        return low.masked_fill(few, -torch.inf), high.masked_fill(few, torch.inf)


def light(rows: int, noise: torch.Generator) -> Decisions:
    """Ten items of equal means two by two; the policy shows the first five three times as often."""
    weights = torch.tensor([1.5] * 5 + [0.5] * 5, dtype=torch.float64)
    return decisions(rows, weights, torch.linspace(0.5, 1.5, 5).repeat(2) * CLICKS, noise)


def heavy(rows: int, noise: torch.Generator) -> Decisions:
    """Twenty items; the policy always shows one of them, whose mean is that of all."""
    weights = torch.zeros(20, dtype=torch.float64)
    weights[0] = 20.0
    others = torch.linspace(0.5, 1.5, 19) * CLICKS
    return decisions(rows, weights, torch.cat([torch.tensor([CLICKS]), others]), noise)


def decisions(rows: int, weights: Tensor, clicks: Tensor, noise: torch.Generator) -> Decisions:
    """``clicks``: (I,) the click rate of each item."""
    items = torch.randint(len(weights), (rows,), generator=noise)
    clicked = (torch.rand(rows, generator=noise) < clicks[items]).double()
    shown = torch.nn.functional.one_hot(items, len(weights)).double()  # (n, I)
    before, hits = shown.cumsum(0) - shown, (shown * clicked[:, None]).cumsum(0) - shown * clicked[:, None]
    return Decisions(weights, items, clicked, (hits + CLICKS) / (before + 1))


# two arms


@dataclass(frozen=True)
class Visits:
    """The sessions of a release in the order of time, with what is known from before."""

    people: Tensor  # (n,) int64
    returns: Tensor  # (n,) of the champion
    before: tuple[Tensor, Tensor]  # people and returns of the record, (RECORD,) each
    means: Tensor  # (n,): of the person's sessions in the record
    counts: Tensor  # (n,) int64: how many these are
    uniform: Tensor  # (n,): a number of the session in [0, 1), by which it gets its arm
    of_person: Tensor  # (n,): the same of the person

    def arms(self, unit: str, share: float) -> Tensor:
        """(n,) bool: of the challenger."""
        return (self.uniform if unit == "session" else self.of_person) < share

    def outcomes(self, challenger: Tensor, effect: float) -> Tensor:
        """(n,): the returns, those of the challenger times 1 + ``effect``."""
        return torch.where(challenger, self.returns * (1 + effect), self.returns).clamp(max=MOST)

    def centred(self, outcomes: Tensor) -> Tensor:
        """(n,): minus the mean of the person's earlier sessions, also of those in the record."""
        people, returns = self.before
        return centred(torch.cat([returns, outcomes]), torch.cat([people, self.people]))[RECORD:]


def visits(sessions: int, noise: torch.Generator) -> Visits:
    """Sessions of people who come back: a few often, most of them rarely."""
    keen = torch.randn(USERS, generator=noise).exp()
    taste = MEAN + math.sqrt(BETWEEN) * torch.randn(USERS, generator=noise, dtype=torch.float64)
    people = torch.multinomial(keen, RECORD + sessions, replacement=True, generator=noise)
    luck = math.sqrt(WITHIN) * torch.randn(len(people), generator=noise, dtype=torch.float64)
    returns = (taste[people] + luck).clamp(0, MOST)
    before, here = people[:RECORD], people[RECORD:]
    counts = before.bincount(minlength=USERS)
    sums = torch.zeros(USERS, dtype=torch.float64).index_add_(0, before, returns[:RECORD])
    means = (sums / counts)[here]  # without a session: not a number, and not used
    drawn = torch.rand(sessions, generator=noise), torch.rand(USERS, generator=noise)[here]
    record = before, returns[:RECORD]
    return Visits(here, returns[RECORD:], record, means, counts[here], *drawn)


def looks(of: Visits, unit: Unit, share: float, effect: float, bound: str) -> Sides:
    """The answers after each session, by the terms of the unit."""
    if bound == "canary":
        return canary_looks(of, unit, share, effect)
    challenger = of.arms(unit, share)
    outcomes, counted = of.outcomes(challenger, effect), torch.ones_like(challenger)
    if unit == "session":
        values = of.centred(outcomes)
    else:
        counted = first_rows(of.people)
        values = centred_by_record(outcomes[counted], of.means[counted], of.counts[counted])
    arms = challenger[counted]
    shares = torch.full((len(arms),), share, dtype=torch.float64)
    terms = arm_terms(arms, shares, values)
    found = sides(*(asymptotic(terms, ALPHA) if bound == "asymptotic" else t_interval(terms)))
    return each_session(found[0], counted), each_session(found[1], counted)


def canary_looks(of: Visits, unit: Unit, share: float, effect: float) -> Sides:
    """What a server's canary says: better, or that the challenger must stop. The first answer ends it."""
    settings = CanarySettings()
    record = [
        Outcome(at - RECORD, person, "", 1.0, reward, 0.0, 0.0, ())
        for at, (person, reward) in enumerate(zip(*(side.tolist() for side in of.before), strict=True))
    ]
    earlier = defaultdict[int, list[Outcome]](list)
    for outcome in record:
        earlier[outcome.person].append(outcome)
    canary = Canary(unit, record[-settings.prior :], settings)
    challenger, noise = of.arms(unit, share), generator_of(len(of.people))
    watched = torch.rand(2, len(challenger), generator=noise) < torch.tensor([[0.01], [0.1]])
    items = torch.multinomial(1 / torch.arange(1.0, 51.0), len(challenger), replacement=True, generator=noise)
    columns = of.people, of.outcomes(challenger, effect), challenger, *watched.double(), items
    better, stopped = torch.zeros_like(challenger), torch.zeros_like(challenger)
    for at, (person, reward, of_challenger, degraded, early, item) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        arm, probability = ("challenger", share) if of_challenger else ("champion", 1 - share)
        outcome = Outcome(at, person, arm, probability, reward, degraded, early, (item,))  # type: ignore[arg-type]
        canary.add(outcome, earlier[person][-settings.history :])
        if at % EVERY == EVERY - 1:
            look = canary.look()
            better[at:], stopped[at:] = look.answer == "better", look.harm != ""
            if better[at] or stopped[at]:
                break
    return better, stopped


def each_session(answers: Tensor, counted: Tensor) -> Tensor:
    """(n,) bool: the latest of the ``answers`` (m,) of the m sessions that are ``counted`` (n,)."""
    at = counted.cumsum(0) - 1
    return answers[at.clamp(min=0)] & (at >= 0)


def by_session_though_split_by_user(of: Visits, share: float, values: Tensor, bound: str) -> Sides:
    """What goes wrong: every session counts as one, and users keep their arm."""
    challenger = of.arms("user", share)
    terms = arm_terms(challenger, torch.full((len(values),), share, dtype=torch.float64), values)
    low, high = asymptotic(terms, ALPHA) if bound == "asymptotic" else t_interval(terms)
    return sides(low[-1:], high[-1:]) if bound == "t, one look" else sides(low, high)


def first_rows(people: Tensor) -> Tensor:
    """(n,) bool: the first row of each of the people (n,) int64."""
    _, person = people.unique(return_inverse=True)
    rows = torch.arange(len(people))
    first = torch.full_like(rows, len(rows)).scatter_reduce(0, person, rows, "amin")
    return rows == first[person]


def centred_by_record(outcomes: Tensor, means: Tensor, counts: Tensor, least: int = 3) -> Tensor:
    """Each outcome minus the person's mean in the record, or of all earlier outcomes if that is of few.

    Args:
        outcomes: (n,), in the order of time.
        means: (n,) of the person's sessions in the record; any number without one.
        counts: (n,) int64: how many these are.
    Returns: (n,) float64.
    """
    y = outcomes.double()
    earlier = (y.cumsum(0) - y) / torch.arange(len(y)).clamp(min=1)
    return y - torch.where(counts >= least, means.double(), earlier)


WRONG: dict[str, tuple[str, Callable[[Visits], Tensor]]] = {
    "not centred, one look": ("t, one look", lambda of: of.returns - MEAN),
    "not centred": ("asymptotic", lambda of: of.returns - MEAN),
    "centred by earlier sessions": ("asymptotic", lambda of: of.centred(of.returns)),
    "centred by the record": (
        "asymptotic",
        lambda of: centred_by_record(of.returns, of.means, of.counts),
    ),
}
"""Ways to count each session of a split by users: the bound, and the outcomes."""


def aa(size: Size) -> list[Row]:
    wrong: dict[tuple[str, str, float, str], list[bool]] = defaultdict(list)
    for run in range(size.runs):
        of = visits(size.sessions, generator_of(run))
        for share in SHARES:
            for unit in UNITS:
                for bound in ("t", "asymptotic", "canary"):
                    found = looks(of, unit, share, 0.0, bound)
                    wrong[unit, "", share, bound].append(bool((found[0] | found[1]).any()))
            for how, (bound, values) in WRONG.items():
                found = by_session_though_split_by_user(of, share, values(of), bound)
                wrong["user, by session", how, share, bound].append(bool((found[0] | found[1]).any()))
    return [
        {
            "part": "aa",
            "unit": unit,
            "how": how,
            "share": share,
            "bound": bound,
            "runs": size.runs,
            "rows": size.sessions,
            "wrong": statistics.mean(found),
        }
        for (unit, how, share, bound), found in wrong.items()
    ]


def effects(size: Size) -> list[Row]:
    settled: dict[tuple[Unit, float, float, str], list[tuple[float, float]]] = defaultdict(list)
    for run in range(size.runs):
        of = visits(size.sessions, generator_of(run))
        for unit in UNITS:
            for share in SHARES:
                for effect in EFFECTS:
                    for bound in ("asymptotic", "canary"):
                        found = looks(of, unit, share, effect, bound)
                        right, other = found if effect > 0 else found[::-1]
                        settled[unit, share, effect, bound].append((first(right), first(other)))
    rows: list[Row] = []
    for (unit, share, effect, bound), found_all in settled.items():
        hits, misses = [one for one, _ in found_all], [two for _, two in found_all]
        rows.append(
            {
                "part": "effects",
                "unit": unit,
                "share": share,
                "effect": effect,
                "bound": bound,
                "runs": size.runs,
                "rows": size.sessions,
                "wrong": mean_below(misses, math.inf),
                "median": statistics.median(hits),
                "within_2000": mean_below(hits, 2_001),
                "within_all": mean_below(hits, math.inf),
            }
        )
    return rows


def first(answers: Tensor) -> float:
    """The number of sessions at the first True, infinite without one."""
    at = answers.nonzero()
    return float(at[0, 0]) + 1 if len(at) else math.inf


def mean_below(numbers: Sequence[float], bound: float) -> float:
    return statistics.mean(number < bound for number in numbers)


PARTS: dict[str, Callable[[Size], list[Row]]] = {"logs": logs, "aa": aa, "effects": effects}


def log_text(results: Path) -> str:
    """False alarms and widths on one-step logs."""
    rows = newest.read(results, "anytime", ("part", "weights", "bound"))
    lines = [
        [row["weights"], BOUNDS[row["bound"]], percent(row["wrong"]), f"{float(row['width']):.2f}"]
        for row in rows
        if row["part"] == "logs"
    ]
    head = ["weights", "interval", "ever wrong, %", "width of the last one, in t-intervals"]
    return f"{newest.table(head, lines)}\n\n{origin(rows, 'logs', 'rows')}"


def wrong_on_logs(results: Path, bound: str) -> str:
    """The share of the one-step logs on which an interval is ever wrong; in brackets with heavy weights."""
    rows = newest.read(results, "anytime", ("part", "weights", "bound"), part="logs", bound=bound)
    of = {row["weights"]: percent(row["wrong"]) for row in rows}
    return f"{of['light']} ({of['heavy']}) %"


# Older rows have bounds that no server used.
BOUNDS = {
    "t": "t-interval",
    "t, one look": "t-interval, one look at the end",
    "asymptotic": "asymptotic sequence",
    "asymptotic, enough": "asymptotic sequence, from 200 effective rows on (as `ope`)",
    "bernstein": "empirical Bernstein sequence, doubly robust terms",
    "canary": "a server's canary",
}


def percent(share: str) -> str:
    return f"{100 * float(share):.1f}"


def of_canary(rows: Sequence[newest.Row]) -> str:
    """How often the rows of the server's canary were run, and how often it is asked."""
    runs = {row["runs"] for row in rows if row["bound"] == "canary"}
    return f" (the canary: {' or '.join(runs)} runs, a look after each 25)" if runs else ""


def origin(rows: Sequence[newest.Row], part: str, unit: str) -> str:
    mine = [row for row in rows if row["part"] == part and row["bound"] in BOUNDS]
    runs = dict.fromkeys(row["runs"] for row in mine if row["bound"] != "canary")
    return (
        f"{' or '.join(runs)} runs of {int(mine[0]['rows']):,} {unit}, a look after each{of_canary(mine)}; "
        f"`python -m benchmarks.anytime`, {newest.origin(mine)}."
    )


def aa_text(results: Path) -> str:
    """False alarms of equal arms."""
    rows = newest.read(results, "anytime", ("part", "unit", "how", "share", "bound"))
    wanted: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row["part"] == "aa" and row["bound"] in BOUNDS:
            wanted[row["unit"], row["how"], row["bound"]][row["share"]] = percent(row["wrong"])
    lines = [
        [
            f"{unit}{', ' if how else ''}{how}",
            BOUNDS[bound],
            *(found.get(f"{share:g}", "") for share in SHARES),
        ]
        for (unit, how, bound), found in wanted.items()
    ]
    head = [
        "arms drawn for each",
        "interval",
        *(f"ever wrong at a share of {share:.0%}, %" for share in SHARES),
    ]
    return f"{newest.table(head, lines)}\n\n{origin(rows, 'aa', 'sessions')}"


def effects_text(results: Path) -> str:
    """Sessions until an answer."""
    rows = newest.read(results, "anytime", ("part", "unit", "share", "effect", "bound"))
    lines = [
        [
            f"{float(row['effect']):+.0%}",
            row["unit"],
            f"{float(row['share']):.0%}",
            BOUNDS[row["bound"]],
            f"{int(float(row['median'])):,}" if row["median"] else "",
            percent(row["within_2000"]),
            percent(row["within_all"]),
            percent(row["wrong"]),
        ]
        for row in rows
        if row["part"] == "effects" and row["bound"] in BOUNDS
    ]
    head = ["effect", "unit", "share", "interval", "sessions until settled, median"]
    head += ["settled within 2,000, %", "within all, %", "the other answer, %"]
    return f"{newest.table(head, lines)}\n\n{origin(rows, 'effects', 'sessions')}"


if __name__ == "__main__":
    tables.run(main)
