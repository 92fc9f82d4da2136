"""main.py with one seeded fault, to show that what should notice it does: faulty_main.py --fault NAME ...

With a task instead of main.py's words it is tools.parity_group with that fault.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def no_ema(engine, target, source, momentum):
    engine.last["momentum"] = momentum


def halved(original):
    """What is told stays, what goes backward is halved."""
    return lambda engine, losses, scales: 0.5 * original(engine, losses, scales)


def doubled(original):
    """Rank 1 sees each of its samples twice, in as many calls as rank 0."""

    def forward_backward(engine, step, batches):
        if engine.ranks.rank == 1:
            batches = [{name: twice(value) for name, value in batch.items()} for batch in batches]
        return original(engine, step, batches)

    return forward_backward


def twice(rows):
    return torch.cat([rows, rows]) if isinstance(rows, torch.Tensor) else rows + rows


def failing(original):
    """Rank 1 fails while rank 0 waits for it in a collective."""

    def step(engine, number):
        if engine.ranks.rank == 1 and number == 2:
            raise RuntimeError("the third step went wrong")
        original(engine, number)

    return step


def hanging(original):
    """Rank 1 never comes back from its third step, for which rank 0 waits in a collective."""

    def step(engine, number):
        if engine.ranks.rank == 1 and number == 2:
            time.sleep(1e6)
        original(engine, number)

    return step


def poisoned(original):
    """From the third step on, rank 1 gets samples that are not finite."""

    def forward_backward(engine, step, batches):
        if engine.ranks.rank == 1 and step >= 2:
            batches = [{**batch, "ecg": batch["ecg"] * float("nan")} for batch in batches]
        return original(engine, step, batches)

    return forward_backward


def late(original):
    """Rank 1 would look two seconds after rank 0."""

    def initial_weights(path):
        time.sleep(2 * (os.environ["RANK"] == "1"))
        return original(path)

    return initial_weights


def slow(original):
    """The last stroke of a checkpoint takes five seconds."""

    def complete(*words):
        time.sleep(5)
        original(*words)

    return complete


def sluggish(original):
    """From the thirteenth step on, each takes four seconds."""

    def step(engine, number):
        time.sleep(4 if number >= 12 else 0)
        original(engine, number)

    return step


def paced(original):
    """Each step takes a tenth of a second more, on fast machines and slow ones."""

    def step(engine, number):
        time.sleep(0.1)
        original(engine, number)

    return step


def last_look(original):
    """From the third one of an attempt on, each forward of an evaluation takes 0.1 s."""
    looks = []

    def measure(monitor, engine, alive):
        looks.append(engine)
        return original(monitor, engine, late_by(0.1 * (len(looks) > 2), alive))

    return measure


def late_by(seconds, original):
    """What would be done at once is done so much later, and announced if that is long."""

    def do(*words, **named):
        if seconds > 1:
            print(f"{original.__name__} in {seconds} s", flush=True)
        time.sleep(seconds)
        return original(*words, **named)

    return do


def looking_slowly(original):
    """Each forward of an evaluation takes 0.1 s."""
    return lambda monitor, engine, alive: original(monitor, engine, late_by(0.1, alive))


def sow(fault):
    from src.checkpoints import write
    from src.engines.training import TrainingEngine
    from src.evaluation.monitor import Monitor
    from src.run import training

    if fault == "ema_off":
        TrainingEngine.ema = no_ema
    elif fault == "weight_decay_off":
        training.weight_decay = lambda config, steps: lambda step: 0.0
    elif fault == "gradients_halved":
        TrainingEngine._total = halved(TrainingEngine._total)
    elif fault == "nan_on_rank_1":
        TrainingEngine.forward_backward = poisoned(TrainingEngine.forward_backward)
    elif fault == "slow_disk":
        write._complete = slow(write._complete)
    elif fault == "slow_steps":
        TrainingEngine.step = sluggish(TrainingEngine.step)
    elif fault == "paced_steps":
        TrainingEngine.step = paced(TrainingEngine.step)
    elif fault == "slow_evaluation":
        Monitor.measure = looking_slowly(Monitor.measure)
    elif fault == "slow_last_evaluation":
        Monitor.measure = last_look(Monitor.measure)
    elif fault == "slow_baseline":
        Monitor.baseline = looking_slowly(Monitor.baseline)
    elif fault == "slow_probe":
        Monitor._probe = late_by(3, Monitor._probe)
    elif fault == "slow_export":
        training.export_encoder = late_by(3, training.export_encoder)
    elif fault == "late_init":
        training.initial_weights = late(training.initial_weights)
    elif fault == "rank_1_hangs":
        TrainingEngine.step = hanging(TrainingEngine.step)
    elif fault == "rank_1_fails":
        TrainingEngine.step = failing(TrainingEngine.step)
    else:
        assert fault == "batch_doubled"
        TrainingEngine.forward_backward = doubled(TrainingEngine.forward_backward)


if __name__ == "__main__":
    import main
    from src.run.launch import in_rank, launch
    from tools import parity_group

    where = sys.argv.index("--fault")
    if where + 2 == len(sys.argv) - 1:  # a group of runs, as tools.parity makes them
        task = json.loads(sys.argv[-1])
        if in_rank():
            sow(sys.argv[where + 1])
            parity_group.train_here(task)
        sys.exit(launch(task["devices"]))
    if in_rank():
        sow(sys.argv[where + 1])
        del sys.argv[where : where + 2]
        main.main()
    words, sys.argv = sys.argv, sys.argv[:where] + sys.argv[where + 2 :]
    arguments = main.arguments()
    main.arguments = lambda: arguments
    sys.argv = words  # what the launcher starts again for each rank
    sys.exit(main.main())
