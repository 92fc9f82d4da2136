"""A run: its folder, its ranks and its logs; what trains adds the loop's machinery in src/run/training.py."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from src.config.experiment import RunConfig
from src.distributed.ranks import Ranks, broadcast_object
from src.randomness import derive_seed
from src.run.folder import RunFolder
from src.run.logs import LOGGER, log_to_file, log_to_terminal
from src.run.wandb_log import WandbLog


class Run:
    """One attempt at a run, on this rank."""

    def __init__(self, config: RunConfig, ranks: Ranks, check: bool = False) -> None:
        self.config, self.ranks, self.check = config, ranks, check
        self.folder = RunFolder(Path(config.logging.folder))
        self.attempt = 0
        torch.manual_seed(derive_seed(config.seed, "weights"))
        if ranks.first:
            log_to_terminal()
        self.wandb = WandbLog(config, self.folder, wanted=ranks.first)

    def claim(self) -> None:
        """Take the run folder; only now, so that a mistake in the config's values or the data leaves nothing behind."""
        claimed = (self.folder.claim(), self.folder.owner.mark) if self.ranks.first else None
        self.attempt, self.folder.owner.mark = broadcast_object(claimed)
        if self.ranks.first:
            log_to_file(self.folder.root / "training.log")

    def cause(self, error: BaseException) -> BaseException:
        """Why the run ends: where its folder is a later attempt's, whatever went wrong is an echo of that."""
        try:
            self.folder.owner.check()
        except ValueError as taken_over:
            return taken_over
        except OSError:
            pass
        return error

    def close(self, exit_code: int) -> None:
        """Tell those who listen how the run ended; waits for them no longer than a minute, after an error seconds."""
        self.wandb.close(exit_code)
        with suppress(OSError):
            self.folder.owner.release()

    def say(self, message: str) -> None:
        """A line for people, from rank 0 alone."""
        if self.ranks.first:
            LOGGER.info(message)
