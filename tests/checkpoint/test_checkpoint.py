"""Checkpoints: equal after a round trip, whole at every moment, and one sentence for every bad file."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import pickle
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_rl.agents.a2c import A2CConfig
from recsys_rl.checkpoint import Checkpoint, check_algo, load, previous, save
from recsys_rl.env.drift import DriftConfig
from recsys_rl.settings.config import Config
from recsys_rl.training.train import train
from recsys_rl.types import Catalogue, Interface, Population, UserError, World, empty_world, genres_and_year
from tests import small_runs
from tests.doors import SATIATION, steps, train_in

Facts = dict[str, Any]
Tensors = dict[str, torch.Tensor]
# One folder serves all examples of a property: each example overwrites the file.
ONE_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)


RANKING = "'ranking'"
LIKES = "holds a population whose 'likes' are not rows of items of each user"


def make_catalogue() -> Catalogue:
    return Catalogue(
        embedding=torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]]),
        item_ids=torch.tensor([7, 2**40, 9]),
        titles=("Amélie", 'quote " and \\', "\ud800 lone surrogate"),
        popularity=torch.tensor([0.5, 0.25, 0.125]),
        quality=torch.tensor([0.9, 0.8, 0.7]),
        available=torch.tensor([True, False, True]),
        source="made up",
        attributes={
            "genres": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
            "year": torch.tensor([2001.0, float("nan"), 1950.0]),
            "creator": torch.tensor([4, 4, -1]),
            "duration": torch.tensor([9.5, torch.nan, 1.0]),
        },
        features=genres_and_year(("drama", "comedy")),
    )


def make_checkpoint(step: int = 640) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    population = Population(
        taste=torch.tensor([[0.1, 0.2], [0.3, 0.4]]),
        profile=torch.tensor([[0.5, 0.6], [0.7, 0.8]]),
        user_ids=torch.tensor([100, 101]),
        train=torch.tensor([1]),
        heldout=torch.tensor([0]),
        attributes={"age": torch.tensor([31, 64])},
        likes={"starts": torch.tensor([0, 2, 3]), "items": torch.tensor([0, 2, 1], dtype=torch.int32)},
        ranking={
            name: torch.tensor(0.5)
            for name in ("users", "embeddings", "popularity", "error", "share", "best")
        },
    )
    return Checkpoint(
        config=Config(
            algo="a2c",
            agent_config=A2CConfig(lr=0.1),
            env_config=DriftConfig(embedding_dim=2),
            hidden_dims=[1],
        ),
        interface=Interface(
            (("user", 2), ("last_item", 2)), (make_catalogue().num_items,), session_length=20
        ),
        world=World(make_catalogue(), population),
        agent={
            "actor.0.weight": torch.randn(3, 2, generator=generator).t(),  # not contiguous
            "optimizer.step": torch.tensor(float(step)),  # no dimension
            "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
            "more": torch.zeros(4),
        },
        env={
            "clock": torch.tensor([3, 0]),
            "empty": torch.zeros(0, 4),
            "hidden": torch.tensor([float("inf")]),
        },
        experience={"running": torch.tensor([0.5])},
        generators={"policy": generator.get_state()},
        step=step,
        updates=step // 64,
        info={"shape": [4], "high": float("inf"), "torch": "2.13", "nothing": None},
    )


def assert_equal(first: object, second: object) -> None:
    """Bit for bit, with types; NaN equals NaN."""
    if dataclasses.is_dataclass(first):
        assert type(first) is type(second)
        for field in dataclasses.fields(first):
            assert_equal(getattr(first, field.name), getattr(second, field.name))
    elif isinstance(first, World):
        assert isinstance(second, World)
        assert_equal(first.catalogue, second.catalogue)
        assert_equal(first.population, second.population)
    elif isinstance(first, dict):
        assert isinstance(second, dict) and first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert (
            isinstance(second, torch.Tensor) and first.dtype == second.dtype and first.shape == second.shape
        )
        raw = [x.contiguous().reshape(-1).view(torch.uint8) for x in (first, second)]
        assert torch.equal(*raw)
    else:
        assert first == second and type(first) is type(second)


def forge(path: Path, change: Callable[[Facts, Tensors], None]) -> None:
    """Alter a checkpoint as a hostile writer would, with a hash that holds: the format, told twice."""
    blob = path.read_bytes()
    start = 8 + int.from_bytes(blob[:8], "little")
    facts = json.loads(json.loads(blob[8:start])["__metadata__"]["recsys_rl"])
    tensors = safetensors.torch.load(blob)
    facts["sha256"] = "0" * 64
    change(facts, tensors)
    blob = safetensors.torch.save(tensors, {"recsys_rl": json.dumps(facts)})
    path.write_bytes(blob.replace(b"0" * 64, hashlib.sha256(blob).hexdigest().encode(), 1))


def refusal(path: Path) -> str:
    """The sentence with which the file is refused; it is one line and names the file."""
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert (
        message.startswith(f"{path} ") and message.endswith(".") and "\n" not in message and ": " in message
    )
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "ppo.pt"
    save(path, make_checkpoint())
    return path


# What goes in comes out.


def test_round_trip(path: Path) -> None:
    assert_equal(make_checkpoint(), load(path))


def test_round_trip_without_a_world(path: Path) -> None:
    bare = dataclasses.replace(
        make_checkpoint(),
        config=Config(env="gym:CartPole-v1", hidden_dims=[1]),
        world=empty_world(),
        env={},
    )
    save(path, bare)
    assert_equal(bare, load(path))


def test_defaults_of_an_earlier_version_are_read(path: Path) -> None:
    """Gains of multipliers, which every checkpoint holds, and an interface without today's fields."""

    def change(facts: Facts, _: Tensors) -> None:
        facts["config"]["train_config"] |= {"limit_kp": 5.0, "limit_ki": 0.5}
        del facts["interface"]["profile"], facts["interface"]["relative"]

    forge(path, change)
    found = load(path)
    assert found.interface == make_checkpoint().interface and found.interface.profile


def test_loaded_generators_continue(path: Path) -> None:
    twin = torch.Generator().manual_seed(640)
    torch.randn(3, 2, generator=twin)
    loaded = torch.Generator()
    loaded.set_state(load(path).generators["policy"])
    assert torch.equal(torch.rand(5, generator=twin), torch.rand(5, generator=loaded))


def test_loaded_tensors_can_be_trained_in_place(path: Path) -> None:
    weight = load(path).agent["actor.0.weight"]
    before = weight.clone()
    assert torch.equal(weight.add_(1.0), before + 1.0)


def test_equal_checkpoints_are_equal_bytes(path: Path) -> None:
    first = path.read_bytes()
    save(path, make_checkpoint())
    assert path.read_bytes() == first
    save(path, load(path))
    assert path.read_bytes() == first


def test_tensors_that_share_memory_are_saved_apart(path: Path) -> None:
    tied = torch.arange(8.0)
    save(path, dataclasses.replace(make_checkpoint(), agent={"a": tied, "b": tied[:2]}))
    assert_equal(dict(load(path).agent), {"a": torch.arange(8.0), "b": torch.arange(2.0)})


# Whole at every moment.


def test_previous_checkpoint_is_kept(path: Path) -> None:
    assert [file.name for file in path.parent.iterdir()] == ["ppo.pt"]
    save(path, make_checkpoint(1280))
    save(path, make_checkpoint(1920))
    assert sorted(file.name for file in path.parent.iterdir()) == ["ppo.prev.pt", "ppo.pt"]
    assert (load(path).step, load(previous(path)).step) == (1920, 1280)


def test_previous_is_kept_without_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    save(path, make_checkpoint(1280))
    assert (load(path).step, load(previous(path)).step) == (1280, 640)


def test_previous_that_already_is_the_same_file(path: Path) -> None:
    """The state after a kill between the two renames; renaming one name of a file to another does nothing."""
    os.link(path, previous(path))
    save(path, make_checkpoint(1280))
    assert sorted(file.name for file in path.parent.iterdir()) == ["ppo.prev.pt", "ppo.pt"]
    assert (load(path).step, load(previous(path)).step) == (1280, 640)


# The script dies in a child before the k-th line of recsys_rl.checkpoint that a save runs, for each k; then
# at random moments. The parent looks at the file after each death.
KILLS = """
    import os, random, signal, sys, time, warnings
    from pathlib import Path
    import torch
    from recsys_rl import checkpoint as module
    from tests.checkpoint.test_checkpoint import make_checkpoint

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path = Path(sys.argv[1])
    module.save(path, make_checkpoint(1))
    two = make_checkpoint(2)

    def die_before(count):
        def trace(frame, event, argument):
            nonlocal count
            if not frame.f_code.co_filename.startswith(os.path.dirname(module.__file__)):
                return None
            if event == "line":
                count -= 1
                if count < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        return trace

    def child(work):
        pid = os.fork()
        if pid == 0:
            try:
                work()
            finally:
                os._exit(0)
        return pid

    def traced(count):
        sys.settrace(die_before(count))
        module.save(path, two)

    deaths, steps = 0, []
    while True:
        module.save(path, make_checkpoint(1))
        status = os.waitpid(child(lambda: traced(deaths)), 0)[1]
        steps.append(module.load(path).step)
        for file in path.parent.glob(".*.tmp"):
            file.unlink()
        if os.WIFEXITED(status):
            break
        deaths += 1
    assert deaths > 30 and steps == sorted(steps) and set(steps) == {1, 2}, (deaths, steps)

    def for_ever():
        step = 3
        while True:
            module.save(path, make_checkpoint(step))
            step += 1

    random_moments = random.Random(0)
    last = kills = 0
    while kills < 25 or (last < 3 and kills < 250):  # a busy machine may need longer for a save
        kills += 1
        pid = child(for_ever)
        time.sleep(random_moments.uniform(0.0, 0.002 * (kills + 25)))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        last = max(last, module.load(path).step)
        module.load(module.previous(path))
    assert last >= 3
"""


@pytest.mark.proof
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_line_and_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLS), str(tmp_path / "ppo.pt")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_files_of_killed_runs_are_deleted(path: Path) -> None:
    old, young = path.with_name(".ppo.pt.01.tmp"), path.with_name(".ppo.pt.02.tmp")
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    save(path, make_checkpoint())
    assert young.exists() and not old.exists()


def assert_unharmed(path: Path, before: bytes) -> None:
    assert [file.name for file in path.parent.iterdir()] == ["ppo.pt"]
    assert path.read_bytes() == before and load(path).step == 640


def test_disk_that_fills_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError):
            save(path, make_checkpoint(1280))
    assert_unharmed(path, before)


def test_write_that_the_system_cuts_short(path: Path) -> None:
    """A real failure halfway through the file: the process may write 1000 bytes to a file, then EFBIG."""
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError):
            save(path, make_checkpoint(1280))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_unharmed(path, before)


def test_read_only_folder(path: Path) -> None:
    before = path.read_bytes()
    path.parent.chmod(0o500)
    try:
        if os.access(path.parent, os.W_OK):
            pytest.skip("this user (root) may write to read-only folders")
        with pytest.raises(UserError):
            save(path, make_checkpoint(1280))
        assert_unharmed(path, before)
    finally:
        path.parent.chmod(0o700)


def test_folder_that_is_a_file_and_file_that_is_a_folder(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        save(path / "ppo.pt", make_checkpoint())
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(UserError):
        save(tmp_path / "folder.pt", make_checkpoint())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoints", "folder.pt"]


def test_interrupted_save_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def ctrl_c(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            save(path, make_checkpoint(1280))
    assert_unharmed(path, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_weights_never_replace_a_good_checkpoint(path: Path, bad: float) -> None:
    before = path.read_bytes()
    with pytest.raises(UserError):
        save(path, dataclasses.replace(make_checkpoint(), agent={"head": torch.tensor([0.0, bad])}))
    assert_unharmed(path, before)


# Bad files.


@given(data=st.data())
@ONE_FOLDER
def test_truncated_anywhere(path: Path, data: st.DataObject) -> None:
    blob = path.read_bytes()
    bad = path.with_name("bad.pt")
    bad.write_bytes(blob[: data.draw(st.integers(0, len(blob) - 1))])
    refusal(bad)


@given(data=st.data())
@ONE_FOLDER
def test_one_byte_altered_anywhere(path: Path, data: st.DataObject) -> None:
    blob = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(blob[:8], "little")
    place = data.draw(st.integers(0, len(blob) - 1) | st.integers(0, header + 100))
    blob[place] ^= data.draw(st.integers(1, 255))
    bad = path.with_name("bad.pt")
    bad.write_bytes(blob)
    refusal(bad)


@given(blob=st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: len(b).to_bytes(8, "little") + b))
@ONE_FOLDER
def test_noise(path: Path, blob: bytes) -> None:
    bad = path.with_name("bad.pt")
    bad.write_bytes(blob)
    refusal(bad)


def test_population_without_a_source(tmp_path: Path) -> None:
    path = tmp_path / "ppo.pt"
    save(path, make_checkpoint())
    forge(path, set_fact("population", {}))
    assert_equal(load(path), make_checkpoint())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("format", "step", "updates", "config", "info", "catalogue", "population")


@given(
    key=st.sampled_from(KEYS),
    inner=st.sampled_from(("", "titles", "source", "env_config", "algo")),
    value=JSON,
)
@ONE_FOLDER
def test_hostile_facts_with_a_valid_hash(path: Path, key: str, inner: str, value: Any) -> None:
    """Whatever stands in the JSON, the answer is a checkpoint or one sentence."""

    def change(facts: Facts, _: Tensors) -> None:
        if inner:
            facts[key] = {**facts[key], inner: value} if isinstance(facts[key], dict) else value
        else:
            facts[key] = value

    bad = path.with_name("bad.pt")
    bad.write_bytes(path.read_bytes())
    forge(bad, change)
    try:
        load(bad)
    except UserError:
        refusal(bad)


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.pt") == (
        f"{tmp_path}/none.pt does not exist: train first, or check the path."
    )
    (tmp_path / "empty.pt").touch()
    assert "empty.pt is empty: " in refusal(tmp_path / "empty.pt")
    assert refusal(tmp_path) == f"{tmp_path} is a folder: give a checkpoint in it, as {tmp_path}/ppo.pt."
    if hasattr(os, "mkfifo"):  # reading it would wait for ever
        os.mkfifo(tmp_path / "pipe.pt")
        assert "is not a file: " in refusal(tmp_path / "pipe.pt")


class Bomb:
    """A pickle that makes a file when it is executed."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_pickle_is_named_and_never_executed(tmp_path: Path, kind: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / "ppo.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(marker)))
    else:
        torch.save({"agent": Bomb(marker)}, path, _use_new_zipfile_serialization=kind == "zip")
    assert "is a pickle as torch.save makes it, which is never opened" in refusal(path)
    assert not marker.exists()


def frame(header: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "blob",
    [
        frame(b"x" * 16, 2**64 - 1),
        frame(b'{"a":' + b" " * 16, 2**63),
        frame(b'{"__metadata__":{"recsys_rl":"{"}}'),
        frame(b"[" * 100_000),
        frame(b"9" * 100_000),
        frame(b'{"__metadata__":{"recsys_rl":"[]"}}'),
        safetensors.torch.save({"w": torch.ones(2)}),
        b"user,item\n1,2\n",
    ],
)
def test_foreign_files(tmp_path: Path, blob: bytes) -> None:
    path = tmp_path / "ppo.pt"
    path.write_bytes(blob)
    refusal(path)


def test_huge_foreign_file_is_not_read(tmp_path: Path) -> None:
    """8 TiB of nothing: neither the rest of the file nor a header length that would fit it is read."""
    path = tmp_path / "ppo.pt"
    for length, cause in ((2, "is not a checkpoint of recsys_rl"), (2**42, "is truncated")):
        path.write_bytes(frame(b"{}", length))
        try:
            os.truncate(path, 2**43)
        except OSError as error:
            pytest.skip(f"no sparse files of this size here ({error.strerror})")
        assert f"ppo.pt {cause}: " in refusal(path)


def set_fact(key: str, value: Any) -> Callable[[Facts, Tensors], None]:
    return lambda facts, _: facts.__setitem__(key, value)


def set_tensor(name: str, value: torch.Tensor) -> Callable[[Facts, Tensors], None]:
    return lambda _, tensors: tensors.__setitem__(name, value)


TASTES = ("population.taste", "population.profile")


def without(section: str) -> Callable[[Facts, Tensors], None]:
    def change(facts: Facts, tensors: Tensors) -> None:
        facts[section] = None
        for name in [name for name in tensors if name.startswith(f"{section}.")]:
            del tensors[name]

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_fact("format", 5),
        set_fact("format", 2),
        set_fact("step", -1),
        set_fact("step", True),
        lambda facts, _: facts.pop("info"),
        lambda facts, _: facts["config"].update(learning_rate=1.0),
        lambda facts, _: facts["config"]["env_config"].update(num_items="many"),
        lambda facts, _: facts["catalogue"]["titles"].pop(),
        lambda facts, _: facts["catalogue"]["features"][0]["values"].pop(),
        lambda facts, _: facts["catalogue"].update(titles="abc"),
        lambda facts, _: facts["catalogue"].update(colour="red"),
        lambda _, tensors: tensors.pop("catalogue.attributes.year"),
        set_fact("catalogue", None),
        lambda facts, _: facts["catalogue"].update(source="log\x1b[2J.csv"),
        set_tensor("catalogue.attributes.year", torch.zeros(2)),
        set_tensor("catalogue.available", torch.tensor(True)),
        set_tensor("catalogue.embedding", torch.zeros(3, 3)),
        lambda _, tensors: tensors.update({name: torch.zeros(2, 4) for name in TASTES}),
        lambda facts, _: facts["config"]["env_config"].update(embedding_dim=3),
        set_tensor("catalogue.embedding", torch.full((3, 2), torch.nan)),
        set_tensor("catalogue.popularity", torch.tensor([0.5, -0.25, 0.1])),
        set_tensor("catalogue.attributes.genres", torch.full((3, 2), 1e9)),
        lambda facts, _: facts["info"].update(curve=[[640, 1.5, 1.0]]),
        lambda facts, _: facts["info"].update(curve=[[640, "1.5", 1, 2]]),
        lambda facts, _: facts["info"].update(curve={"step": 640}),
        set_tensor("population.user_ids", torch.tensor(5)),
        set_tensor("population.train", torch.tensor([2])),
        set_tensor("population.heldout", torch.tensor([-1])),
        set_tensor("population.train", torch.tensor([[0]])),
        set_tensor("population.train", torch.zeros(0).long()),
        set_tensor("population.heldout", torch.zeros(0).long()),
        set_tensor("population.likes.starts", torch.tensor([0, 4, 3])),
        set_tensor("population.likes.starts", torch.tensor([0, 3])),
        set_tensor("population.likes.starts", torch.tensor([0, 2, 4])),
        set_tensor("population.likes.items", torch.tensor([0, 2, 3], dtype=torch.int32)),
        set_tensor("population.likes.items", torch.tensor([0, -1, 1], dtype=torch.int32)),
        set_tensor("population.likes.items", torch.tensor([0, 2, 1])),
        set_tensor("population.likes.more", torch.tensor([0])),
        set_tensor("population.ranking.users", torch.tensor(torch.nan)),
        set_tensor("population.ranking.users", torch.tensor([3.0])),
        set_tensor("population.ranking.others", torch.tensor(3.0)),
        lambda facts, _: facts["config"].update(env="gym:CartPole-v1", env_config={}, data_config={}),
        without("catalogue"),
        without("population"),
        set_tensor("agent.head", torch.tensor([0.0, torch.nan])),
        set_tensor("generators.policy", torch.zeros(3)),
        set_tensor("stranger", torch.zeros(3)),
        lambda facts, _: facts["config"]["model_config"].update(hidden_dims=[100_000, 100_000]),
        lambda facts, _: facts["interface"].update(history_length=10**9),
        lambda facts, _: facts["interface"].update(context=[["user", 10**9]]),
        lambda facts, _: facts["interface"].update(session_length=10**9),
        lambda facts, _: facts["interface"].update(slate_size=10**9),
    ],
)
def test_valid_hash_over_invalid_content(path: Path, change: Callable[[Facts, Tensors], None]) -> None:
    forge(path, change)
    refusal(path)


def of_format_3(facts: Facts, tensors: Tensors) -> None:
    """Genres and year are fields, and no features are listed."""
    items = facts["catalogue"]
    items["genre_names"] = items.pop("features")[0]["values"]
    for name in ("genres", "year"):
        tensors[f"catalogue.{name}"] = tensors.pop(f"catalogue.attributes.{name}")
    facts["format"] = 3


def test_file_of_format_3_is_read(path: Path) -> None:
    forge(path, of_format_3)
    assert_equal(make_checkpoint(), load(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda facts, _: facts["catalogue"]["genre_names"].pop(),
        lambda facts, _: facts["catalogue"].update(genre_names=5),
        lambda facts, _: facts["catalogue"].update(features=5),
        lambda _, tensors: tensors.pop("catalogue.year"),
    ],
)
def test_broken_file_of_format_3(path: Path, change: Callable[[Facts, Tensors], None]) -> None:
    forge(path, of_format_3)
    forge(path, change)
    refusal(path)


def test_tensor_wins_over_a_text_of_its_name(path: Path) -> None:
    forge(path, lambda facts, _: facts["catalogue"].update(quality=[1, 2, 3]))
    assert_equal(make_checkpoint(), load(path))


def test_head_that_expects_no_rewards(tmp_path: Path) -> None:
    """As of a version whose two towers stood alone."""
    path = train_in(tmp_path / "run", *SATIATION, *steps(1))
    assert load(path).config.model_config.head == "two-tower"

    def forget(_: Facts, tensors: Tensors) -> None:
        for name in [name for name in tensors if "expected" in name or "curves" in name]:
            del tensors[name]

    forge(path, forget)
    assert "expected no rewards" in refusal(path)


def test_deep_sets_without_stocks(tmp_path: Path) -> None:
    """As of a version whose deep sets were a mean alone."""
    path = train_in(tmp_path / "run", *SATIATION, *steps(1), "--encoder", "deep-sets")

    def forget(_: Facts, tensors: Tensors) -> None:
        for name in [name for name in tensors if "encoder.keep" in name or "encoder.push" in name]:
            del tensors[name]

    forge(path, forget)
    assert "no stocks" in refusal(path)


def test_encoder_that_expects_no_signals(tmp_path: Path) -> None:
    """As of a version in which encoders learned from the return alone."""
    config = small_runs.settings(
        "a2c",
        "satiation",
        data_config={"num_users": 30},
        env_config={"num_items": 20, "embedding_dim": 4, "max_episode_steps": 5},
        agent_config={"num_envs": 4, "n_steps": 4},
        model_config={"encoder": "transformer", "hidden_dims": [8]},
        train_config={"total_timesteps": 16, "eval_interval": 0},
    )
    path = train(config, folder=tmp_path / "run", quiet=True)
    forge(path, lambda facts, tensors: None)
    assert load(path).config.model_config.encoder == "transformer"

    def forget(_: Facts, tensors: Tensors) -> None:
        for name in [name for name in tensors if "next_signals" in name]:
            del tensors[name]

    forge(path, forget)
    refusal(path)


FLOATS = (
    *("catalogue.embedding", "catalogue.attributes.genres", "catalogue.popularity", "catalogue.quality"),
    *TASTES,
)
OTHERS = {
    "catalogue.attributes.year": "float32",
    "catalogue.available": "bool",
    **dict.fromkeys(
        ("catalogue.item_ids", "population.user_ids", "population.train", "population.heldout"), "int64"
    ),
}


@pytest.mark.parametrize("name", [*FLOATS, *OTHERS])
def test_dtype_of_fields(path: Path, name: str) -> None:
    forge(path, lambda _, tensors: tensors.update({name: tensors[name].to(torch.float64)}))
    refusal(path)


@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
@pytest.mark.parametrize("name", FLOATS)
def test_numbers_are_finite_except_years(path: Path, name: str, bad: float) -> None:
    forge(path, lambda _, tensors: tensors.update({name: torch.full_like(tensors[name], bad)}))
    refusal(path)


def test_path_as_text(path: Path) -> None:
    save(str(path), make_checkpoint(1280))
    assert_equal(load(str(path)), load(path))
    with pytest.raises(UserError):
        load("no/such.pt")


def test_link_to_a_checkpoint(path: Path) -> None:
    """A refusal names the checkpoint before it, beside the file itself, or the target that is gone."""
    save(path, make_checkpoint(1280))
    link = path.with_name("folder") / "latest.pt"
    link.parent.mkdir()
    link.symlink_to(f"../{path.name}")
    assert_equal(load(link), load(path))
    path.write_bytes(b"")
    assert f", or give {previous(path.resolve())}, the whole checkpoint before it." in refusal(link)
    for file in (path, previous(path)):
        file.unlink()
    assert f"{link} is a link to ../{path.name}, which is gone: train first" in refusal(link)


def test_algo_alone_can_be_checked(path: Path) -> None:
    check_algo(path, load(path), "a2c")
    with pytest.raises(UserError):
        check_algo(path, load(path), "ppo")


@pytest.mark.parametrize("path", [".", "/", ""])
def test_path_without_a_name(path: str) -> None:
    with pytest.raises(UserError):
        load(path)
