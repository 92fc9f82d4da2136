"""The training run: everything around an objective's loop that is the same for all of them.

for step, batch in run.steps(engine, loader, monitor):    # continues where the folder stands, checkpoints on the way
    losses = engine.forward_backward(step, batch)
    engine.step(step)
    run.log(step, losses)
run.finish(engine)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from src.checkpoints.manifest import Manifest, read_manifest
from src.checkpoints.read import Checkpoint
from src.checkpoints.retention import clear_leftovers, retain, set_aside
from src.checkpoints.write import BackgroundWriter, write_checkpoint
from src.config.experiment import ExperimentConfig
from src.config.identity import config_hash, identity
from src.config.load import dump_config
from src.data.loader import Batch, Loader
from src.distributed.batchnorm import normalises_batches
from src.distributed.ranks import Ranks, barrier, broadcast_object
from src.engines.build import build_engine
from src.engines.engine import Engine, Setup
from src.evaluation.encoder import EncoderPart, export_encoder
from src.evaluation.monitor import Evaluation
from src.files import replace_text
from src.optimization.schedules import count_steps, learning_rate, warmup_steps, weight_decay
from src.run.check import CHECK_STEPS, count_parameters, describe
from src.run.clock import Clock
from src.run.environment import environment
from src.run.folder import Attempt
from src.run.logs import LOGGER, Lines, Progress, duration
from src.run.resume import ResizedWeights, checkpoint_of, find_checkpoint, initial_weights
from src.run.run import Run
from src.run.stop import Stopped, StopRequest
from src.run.table import Table
from src.run.watchdog import Watchdog

EVALUATION = "in an evaluation"


class Part(Protocol):
    """What a run leaves behind beside its encoder."""

    @property
    def networks(self) -> tuple[str, ...]:
        """Children of the objective."""

    def write(self, run: Path, weights: Mapping[str, Mapping[str, Tensor]], allowed: Callable[[], object]) -> None:
        """Their weights into the run folder; `allowed` raises where that must not be written any more."""


class TrainingRun(Run):
    """One attempt at a training, on this rank."""

    config: ExperimentConfig

    def __init__(
        self, config: ExperimentConfig, ranks: Ranks, check: bool = False, watchdog: Watchdog | None = None
    ) -> None:
        super().__init__(config, ranks, check)
        self.total_steps = 0
        self._parameters = (0, 0)
        self._cuts_batches = False
        """Whether what is learned depends on how a rank's share is cut into micro-batches."""
        self._clock = Clock()
        self._writer = BackgroundWriter(ranks)
        self.watchdog = watchdog or Watchdog(config.engine.timeout, ranks.rank)
        self._stop: StopRequest | None = None
        self._grounds: dict[str, str] = {}
        """Keys of the config that name what the weights mean nothing without, and the sha256 of that."""
        self._done = 0
        """Steps completed."""
        self._saved = 0
        """Steps that the checkpoint has from which this attempt goes on."""
        self._owed: float | None = None
        """The loss of the step whose evaluation was broken off, until that is made up for."""

    def rests_on(self, what: str, sha256: str) -> None:
        """Tell the content of what a key of the config names: a checkpoint that was made with another is refused."""
        self._grounds[what] = sha256

    def engine(self, objective: nn.Module, loader: Loader, encoder: EncoderPart) -> Engine:
        """The engine that the config asks for around the objective, with schedules over the whole run.

        `encoder` is the part of the objective that the run is for: checkpoints tell of it, the end exports it.
        """
        self._encoder = encoder
        config = self.config.optimization
        self.total_steps = count_steps(config, self.config.data.batch_size, loader.samples)
        self._parameters = count_parameters(objective)
        if self.config.engine.name == "ddp" and self.ranks.world_size == 1:
            self.say("warning: engine.name is ddp, but one process has nothing to share: plain is used")
        self._cuts_batches = loader.micro_batches > 1 and normalises_batches(objective)
        warmup = warmup_steps(config, self.config.data.batch_size, loader.samples)
        setup = Setup(
            config=self.config.engine,
            optimization=config,
            ranks=self.ranks,
            seed=self.config.seed,
            learning_rate=learning_rate(config, warmup, self.total_steps),
            weight_decay=weight_decay(config, self.total_steps),
        )
        return build_engine(objective, setup)

    def steps(self, engine: Engine, loader: Loader, monitor: Evaluation) -> Iterator[tuple[int, list[Batch]]]:
        """Step numbers with this rank's micro-batches, from where the run folder stands to the end.

        After the body of a step, and before the next, its metrics line, an evaluation and a checkpoint are written
        where due. Where the evaluation follows a score, the best so far has a checkpoint, and patience may end the run
        before its last step.

        Raises:
            ValueError: the folder belongs to another experiment, or none of its checkpoints is whole, or a later
                attempt has taken it over.
            Stopped: a signal asked for it; the last step is saved.
        """
        if not self.check:
            self.claim()
            self._stop = StopRequest(self.ranks)
        if loader.note:
            self.say(f"warning: {loader.note}")
        if self._cuts_batches:
            self.say(
                f"warning: the model has BatchNorm, whose statistics are those of each of {loader.micro_batches} "
                "micro-batches and not of the whole batch: leave data.micro_batch_size out, or use more ranks"
            )
        start = self._restore(engine, loader, monitor)
        if self._stop is None:
            yield from self._check_steps(loader, start)
            return
        self._open_logs(start, loader)
        if self._owed is not None and (asked := self._evaluate(start - 1, self._owed, engine, monitor)):
            raise Stopped(asked, start)
        self._done = start
        end = start if _ended(monitor) else self.total_steps
        progress = Progress(start, self.total_steps, shown=self.ranks.first)
        batches = loader.steps(start, end)
        self._clock = Clock()
        asked = 0
        for step in range(start, end):
            self.watchdog.beat(f"in step {step}")
            batch = self._clock.next(batches)
            self._write_audit(step, batch)
            self._losses: dict[str, Tensor] = {}
            self._measures: dict[str, float] = {}
            yield step, batch
            self._clock.count(self.config.data.batch_size)
            if self._due(step, self.config.logging.every):
                self._share_broken(loader)
                if self.ranks.first:
                    self._write_metrics(step, engine, loader, progress)
            progress.advance()
            if monitor.every is not None and self._due(step, monitor.every):
                with self._clock.paused():
                    asked = self._evaluate(step, self._losses["loss"].item(), engine, monitor)
            self._writer.check()
            self._done, ended = step + 1, _ended(monitor)
            if not asked and not ended and self._done < self.total_steps:
                asked = self._stop.poll()
            best = monitor.best is not None and monitor.best.step == self._done
            if asked or ended or best or self._due(step, self.config.checkpoint.every):
                self._save(engine, loader, self._done, monitor)
            if asked or ended:
                break
        self.watchdog.beat("after the last step")
        self._stop.drain()
        self._writer.wait()
        barrier()
        progress.close()
        if loader.broken:
            self.say(
                f"{len(loader.broken)} broken samples gave their places to others; {self.folder.broken} lists them"
            )
        if asked:
            raise Stopped(asked, self._done)
        if _ended(monitor):
            self.say(f"stopped early after {self._done} of {self.total_steps} steps")

    def return_to_best(self, engine: Engine, monitor: Evaluation) -> None:
        """Load the weights of the best checkpoint, which training leaves behind it; as they are where none was chosen.

        Raises:
            ValueError: it is not whole any more.
        """
        step = None if monitor.best is None or self.check else monitor.best.step
        if step is None or step == self._done:
            return
        path = broadcast_object(checkpoint_of(self.folder.checkpoints, step) if self.ranks.first else None)
        engine.load_weights(Checkpoint(path, read_manifest(path)))
        self.say(f"back to the best weights, those of step {step}")

    def log(self, step: int, losses: dict[str, Tensor], measures: Callable[[], dict[str, float]] | None = None) -> None:
        """Hand over the global losses of this step, which are read from the device only where a line is due. There all
        ranks ask `measures` what else is known of it, by the names that it has in metrics.jsonl."""
        self._losses = losses
        if measures is not None and self._due(step, self.config.logging.every):
            self._measures = measures()

    def finish(self, engine: Engine, *parts: Part) -> None:
        """Export the encoder, with what rebuilds it and makes its input, into the folder's encoder/, and other parts
        of the objective beside it."""
        if self.check:
            self.watchdog.rest()
            return
        weights = engine.network(self._encoder.network)
        if self.ranks.first:
            export_encoder(self.folder.encoder, weights, self._encoder, self.folder.owner.check)
        for part in parts:
            networks = {name: engine.network(name) for name in part.networks}
            if self.ranks.first:
                part.write(self.folder.root, networks, self.folder.owner.check)
        self.say(f"finished {self._done} steps; the encoder is in {self.folder.encoder}")
        barrier()
        self.watchdog.rest()

    def _due(self, step: int, every: int) -> bool:
        return (step + 1) % every == 0 or step + 1 == self.total_steps

    def _restore(self, engine: Engine, loader: Loader, monitor: Evaluation) -> int:
        """Load the newest whole checkpoint, else the weights of init_from, else nothing; returns the next step.

        Before that, with the weights as they were drawn, the monitor takes its baseline, if any step is to come. Rank 0
        finds and verifies, and all ranks load what it found: another run may be writing into init_from.
        """
        path = broadcast_object(self._find_checkpoint(loader) if self.ranks.first else None)
        checkpoint = None if path is None else Checkpoint(path, read_manifest(path))
        if checkpoint is not None:
            self._compare_grounds(checkpoint)
            self._saved = checkpoint.manifest.step
        if monitor.every is not None:
            self._owed = self._owed_by(checkpoint, monitor)
            if self._saved < self.total_steps or self._owed is not None:
                if monitor.note:
                    self.say(f"warning: {monitor.note}")
                monitor.baseline(engine, partial(self._alive, EVALUATION, self._saved))
        if checkpoint is not None:
            engine.load(checkpoint)
            loader.broken.load(checkpoint.state.get("broken", []))
            if monitor.best is not None and "best" in checkpoint.state:
                monitor.best.load(checkpoint.state["best"])
            self.say(f"continuing from {path}")
            return checkpoint.manifest.step
        if self.config.starts_whole_from is not None:
            start = Path(self.config.starts_whole_from)
            path = broadcast_object(initial_weights(start).folder if self.ranks.first else None)
            engine.load_weights(ResizedWeights(Checkpoint(path, read_manifest(path)), self._encoder.config))
            self.say(f"starting from the weights of {path}")
        return 0

    def _compare_grounds(self, checkpoint: Checkpoint) -> None:
        before = checkpoint.state.get("grounds", {})
        for what, sha256 in self._grounds.items():
            if before.get(what, sha256) != sha256:
                raise ValueError(
                    f"{what} is not what {self.folder.root} has been trained with: put that back, or name a new "
                    "logging.folder"
                )

    def _owed_by(self, checkpoint: Checkpoint | None, monitor: Evaluation) -> float | None:
        """What a checkpoint says of an evaluation that was broken off before it, if none has made up for it since.

        A score that is followed must be had again: the checkpoint does not know of it.
        """
        owed = None if checkpoint is None else checkpoint.state.get("owed_evaluation")
        if monitor.best is not None:
            return owed
        made_up = broadcast_object(self.ranks.first and self.folder.has_health(self._saved - 1))
        return None if made_up else owed

    def _find_checkpoint(self, loader: Loader) -> Path | None:
        if not self.check:  # before one is chosen: an orphan may be about to finish another
            clear_leftovers(self.folder.checkpoints, self.attempt)
        path, damages = find_checkpoint(self.folder, self.config, loader.sha256)
        for damage in damages:
            self.say(f"warning: a damaged checkpoint is skipped and set aside: {damage}")
        if not self.check:
            self.folder.owner.check()
            set_aside(damage.folder for damage in damages)
        return path

    def _open_logs(self, start: int, loader: Loader) -> None:
        if self.ranks.first:
            self.folder.owner.check()
            self.folder.cut_logs(start, health=start if self._owed is None else start - 1)
            replace_text(self.folder.config, dump_config(self.config))
            self.folder.record_attempt(
                Attempt(
                    number=self.attempt,
                    start=start,
                    checkpoint_every=self.config.checkpoint.every * (2 if self.config.checkpoint.background else 1),
                    world_size=self.ranks.world_size,
                    identity=identity(self.config),
                    data_sha256=loader.sha256,
                    environment=environment(),
                )
            )
            self._metrics = Lines(self.folder.metrics)
            self._health = Lines(self.folder.health)
            self._broken = Lines(self.folder.broken)
            self._table = Table(self.folder.metrics_csv, self.folder.metrics)
            self.wandb.open(start)
        barrier()
        audit = self.folder.audit / f"rank-{self.ranks.rank}.jsonl"
        self._audit = Lines(audit) if self.config.logging.audit else None

    def _write_audit(self, step: int, batch: list[Batch]) -> None:
        if self._audit is not None:
            keys = [key for micro_batch in batch for key in micro_batch["keys"]]
            self._audit.write({"step": step, "attempt": self.attempt, "keys": keys})

    def _write_metrics(self, step: int, engine: Engine, loader: Loader, progress: Progress) -> None:
        self.folder.owner.check()
        losses = {name: value.item() for name, value in self._losses.items()}
        loss = losses.pop("loss")
        batch_size = self.config.data.batch_size
        epoch = step * batch_size // loader.samples + 1
        rate, wait = self._clock.read()
        record = (
            {"step": step, "epoch": epoch, "loss": loss}
            | {f"loss/{name}": value for name, value in losses.items()}
            | self._measures
            | engine.metrics()
            | {"broken": len(loader.broken)}
            | {"samples_per_second": round(rate, 1), "data_wait": round(wait, 4)}
        )
        for log in (self._metrics, self._table, self.wandb):
            log.write(record)
        progress.show(epoch, loss, rate, wait)
        left = duration((self.total_steps - step - 1) * batch_size / rate)
        LOGGER.info(
            f"step {step + 1}/{self.total_steps}, epoch {epoch}, loss {loss:.4f}, {rate:.0f} samples/s, "
            f"waiting {wait:.0%}, {left} left"
        )

    def _share_broken(self, loader: Loader) -> None:
        """What any rank has found broken is told by rank 0, counted and listed; all ranks end where it is too much."""
        for broken in loader.broken.share():
            self.say(f"warning: a broken sample is skipped from step {broken.step} on: {broken.sentence}")
            if self.ranks.first and not self.check:
                self._broken.write(broken._asdict())
        loader.broken.check()

    @contextmanager
    def after_training(self, what: str) -> Iterator[Callable[[], None]]:
        """Around what all ranks compute between the last step and `finish`.

        They call what this gives equally often. It raises Stopped where a stop was asked for: the last step is saved,
        so that the same command begins there again.
        """
        yield partial(self._alive, what, self._done)
        if self._stop is not None:
            self._stop.drain()

    def _alive(self, what: str, saved: int) -> None:
        """Called by all ranks before each forward of an evaluation: a stop that was asked of any breaks it off."""
        self.watchdog.beat(what)
        if self._stop is not None and (asked := self._stop.poll()):
            self._stop.drain()
            raise Stopped(asked, saved)

    def _evaluate(self, step: int, loss: float, engine: Engine, monitor: Evaluation) -> int:
        """Measure on all ranks; rank 0 writes it down and says aloud what it warns of.

        Returns the signal that broke it off, or 0: it is owed then, and the attempt that goes on begins with it.
        """
        try:
            record = monitor.measure(engine, step + 1, partial(self._alive, EVALUATION, self._saved))
        except Stopped as stopped:
            self._owed = loss
            return stopped.number
        self._owed = None
        if self.ranks.first:
            self._write_health({"step": step, "loss": loss, **record}, monitor)
        return 0

    def _write_health(self, record: dict[str, Any], monitor: Evaluation) -> None:
        """Embeddings first: a step that health.jsonl tells of has been evaluated."""
        self.folder.owner.check()
        if monitor.embeds:
            with self.folder.replacing(self.folder.embeddings) as draft:
                monitor.save_embeddings(draft)
        self._health.write(record)
        self.wandb.write_health(record)
        step = record["step"] + 1
        LOGGER.info(f"health at step {step}: {monitor.summary(record)}")
        for alarm in record["alarms"]:
            LOGGER.warning(f"ALARM at step {step}: {alarm}")

    def _save(self, engine: Engine, loader: Loader, step: int, monitor: Evaluation) -> None:
        """Write a checkpoint of `step` completed steps; the logs are on disk before its manifest."""
        self.watchdog.beat(f"in the checkpoint of {step} steps")
        self._share_broken(loader)
        if self._audit is not None:
            self._audit.sync()
        if self.ranks.first:
            self.folder.owner.check()
            for log in (self._metrics, self._health, self._broken):
                log.sync()
        manifest = Manifest(
            step=step,
            samples=step * self.config.data.batch_size,
            attempt=self.attempt,
            world_size=self.ranks.world_size,
            engine=engine.name,
            optimizer_steps=engine.optimizer_steps,
            identity=identity(self.config),
            config_hash=config_hash(self.config),
            data_sha256=loader.sha256,
            state=engine.state()
            | {"broken": loader.broken.state(), "owed_evaluation": self._owed, "grounds": self._grounds}
            | ({} if monitor.best is None else {"best": monitor.best.state()}),
            encoder=self._encoder.describe(),
        )
        owned = self.folder.owner.check
        if self.config.checkpoint.background:
            self._writer.write(self.folder.checkpoints, manifest, engine.pieces(), self._retain, owned)
            return
        written = write_checkpoint(self.folder.checkpoints, manifest, engine.pieces(), self.ranks, owned)
        if self.ranks.first:
            self._retain(written)

    def _retain(self, written: Path) -> None:
        self.folder.owner.check()
        retain(self.folder.checkpoints, self.config.checkpoint, written)

    def _check_steps(self, loader: Loader, start: int) -> Iterator[tuple[int, list[Batch]]]:
        """Train a step or two whose result is thrown away, then say what the run would be."""
        seconds = 0.0
        begin = min(start, self.total_steps - 1)
        end = min(begin + CHECK_STEPS, self.total_steps)
        batches = loader.steps(begin, end)
        for step in range(begin, end):
            begun = time.perf_counter()
            yield step, next(batches)
            seconds = time.perf_counter() - begun
        self._share_broken(loader)
        self.say(describe(self.config, self.ranks, self._parameters, loader.samples, start, self.total_steps, seconds))


def _ended(monitor: Evaluation) -> bool:
    """Whether a score that the evaluation follows has ended the run."""
    return monitor.best is not None and monitor.best.ended
