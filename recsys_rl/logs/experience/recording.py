"""The observer that records all decisions of a run (--record)."""

from __future__ import annotations

from recsys_rl.checkpoint import Checkpoint, restoring
from recsys_rl.logs.experience.recorder import make_recorder
from recsys_rl.training.observers import Observer
from recsys_rl.training.run import Run


class Recording(Observer):
    """Records the decisions of the run, and writes them before each checkpoint."""

    def __init__(self, run: Run, before: Checkpoint | None) -> None:
        """``before``: the checkpoint of a resumed run. Raises UserError where no log can hold them."""
        self.recorder = make_recorder(run.config, run.world, run.env)
        if before is not None:
            with restoring():
                self.recorder.resume_at(run.updates)
                self.recorder.load_state_dict(before.experience)
        run.experience.watcher = self.recorder

    def saving(self, run: Run) -> None:
        self.recorder.write(run.updates, run.updates == run.num_updates)
