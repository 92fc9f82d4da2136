"""The metrics and the health in Weights & Biases, for those who ask for it: one W&B run for all attempts at a run.

W&B can't rewind, so the lines have an axis of their own, `step`: what is trained again after a kill is logged again at
its step. The run's W&B id lives in the run folder. What leaves the machine is the config and the lines of
metrics.jsonl and health.jsonl: no code, no git state, no terminal output, and of the machine its host name alone.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import deque
from typing import Any

from src.config.experiment import RunConfig
from src.files import replace_text
from src.run.folder import RunFolder
from src.run.logs import LOGGER, finite

INIT_SECONDS = 30.0
FLUSH_SECONDS = 1.0
"""W&B's own process writes this often; its default of 15 s loses whole short runs to a kill."""
REPEATED = 1000
"""So many of the last lines are logged again by the next attempt, for those that the kill took from W&B's process."""
FINISH_SECONDS, CRASH_SECONDS = 60.0, 5.0
"""How long the end of a run waits for W&B; what is not sent by then is in wandb/ and `wandb sync` sends it."""


class WandbLog:
    """The lines of metrics.jsonl and health.jsonl as a W&B run.

    Does nothing where it is not `wanted` or `logging.wandb.mode` is disabled.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, wanted: bool) -> None:
        """Find the package and the account, without the network and before anything is trained.

        Raises:
            ValueError: one of them is missing.
        """
        self._config, self._folder = config, folder
        self._wanted = wanted and config.logging.wandb.mode != "disabled"
        self._run: Any = None
        if self._wanted:
            self._check()

    def _check(self) -> None:
        mode = self._config.logging.wandb.mode
        try:
            import wandb
        except ImportError as error:
            raise ValueError(
                f"logging.wandb.mode is {mode}, but the package wandb can't be imported ({error}); pip install wandb, "
                f"or set it to disabled"
            ) from None
        try:
            wandb.setup(self._settings())
            found = mode == "offline" or wandb.login(prompt=False, verify=False)
            problem = "no W&B account is set up here"
        except wandb.errors.AuthenticationError as error:
            found, problem = False, _sentence(error)
        except Exception as error:  # its own process can't be started, for instance
            raise ValueError(
                f"logging.wandb.mode is {mode}, but W&B could not be started ({_sentence(error)}); mend that, or set it"
                f" to disabled"
            ) from error
        if not found:
            wandb.teardown()
            raise ValueError(
                f"logging.wandb.mode is {mode}, but {problem}; run `wandb login`, set the environment variable "
                f"WANDB_API_KEY, or set logging.wandb.mode to offline"
            )

    def _settings(self) -> Any:
        import wandb

        return wandb.Settings(
            mode=self._config.logging.wandb.mode,  # here as well: WANDB_MODE does not overrule the config
            console="off",
            disable_code=True,
            save_code=False,
            disable_git=True,
            disable_job_creation=True,
            silent=True,
            symlink=False,
            init_timeout=INIT_SECONDS,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            x_transaction_log_flush_interval=FLUSH_SECONDS,
        )

    def open(self, start: int) -> None:
        """Start the W&B run, or go on with it, and log again what a kill may have taken from it.

        Raises:
            ValueError: W&B refuses or can't be reached, and nothing has been trained; a run that has goes on without.
        """
        if not self._wanted:
            return
        try:
            self._start()
        except Exception as error:
            problem = f"W&B could not be started: {_sentence(error)}"
            if not start:
                raise ValueError(f"{problem}; mend that, or set logging.wandb.mode to offline or disabled") from None
            self._give_up(f"{problem}; continuing without it")

    def _start(self) -> None:
        import wandb

        config, root = self._config.logging.wandb, self._folder.root.resolve()
        known = self._folder.wandb_id.exists()
        if not known:
            replace_text(self._folder.wandb_id, secrets.token_hex(8))
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=config.name or root.name,
            tags=config.tags,
            id=self._folder.wandb_id.read_text(),
            resume="allow",
            dir=root,
            config=self._config.model_dump(mode="json"),
            settings=self._settings(),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        LOGGER.info(f"W&B: {self._run.url or f'offline, to be sent with wandb sync {root}/wandb/offline-run-*'}")
        for path, write in ((self._folder.metrics, self.write), (self._folder.health, self.write_health)):
            with path.open() as lines:
                for line in deque(lines, maxlen=REPEATED if known else None):
                    write(json.loads(line))

    def write(self, record: dict[str, Any]) -> None:
        """Log one record at its step; numbers that are not finite are left out."""
        if self._run is None:
            return
        try:
            self._run.log({key: value for key, value in finite(record).items() if value is not None})
        except Exception as error:
            self._give_up(f"W&B failed at step {record['step']}: {_sentence(error)}; continuing without it")

    def write_health(self, record: dict[str, Any]) -> None:
        """Log the numbers of a line of health.jsonl at its step, as health/<name>."""
        measures = {name: value for name, value in record.items() if isinstance(value, int | float) and name != "step"}
        self.write({"step": record["step"], **{f"health/{name}": value for name, value in measures.items()}})

    def close(self, exit_code: int) -> None:
        """Hand over what is left and say how the run ended; waits for a while and not longer."""
        if self._run is None:
            return
        seconds = CRASH_SECONDS if exit_code else FINISH_SECONDS
        ending = threading.Thread(target=self._finish, args=(exit_code,), daemon=True)
        ending.start()
        ending.join(seconds)
        if ending.is_alive():
            self._give_up(f"W&B did not take the last lines within {seconds:.0f} s")

    def _finish(self, exit_code: int) -> None:
        import wandb

        try:
            self._run.finish(exit_code)
            wandb.teardown()
        except Exception as error:
            self._give_up(f"W&B could not be finished: {_sentence(error)}")

    def _give_up(self, problem: str) -> None:
        self._run = None
        LOGGER.warning(
            f"warning: {problem} (metrics.jsonl is complete; what W&B has kept in {self._folder.root / 'wandb'} can be "
            f"sent with wandb sync)"
        )


def _sentence(error: Exception) -> str:
    """An error's message on one line; W&B's have several."""
    return " ".join(str(error).split()) or type(error).__name__
