"""main.py with one seeded fault, to show that what should notice it does: faulty_main.py --fault NAME ...

With a task instead of main.py's words it is tools.parity_group with that fault.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from functools import partial, reduce
from pathlib import Path

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
    import torch  # not for the launcher

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


def absent(original):
    """Rank 1 meets the others and then never joins their group."""

    def init_process_group(*words, **named):
        if os.environ["RANK"] == "1":
            time.sleep(1e6)
        return original(*words, **named)

    return init_process_group


def with_child(original):
    """The third step waits four seconds for a process that it has started, as compilers and git are."""

    def step(engine, number):
        if number == 2:
            echo = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            print("a child is there", flush=True)
            time.sleep(4)
            out, _ = echo.communicate(b"alive", timeout=30)
            assert out == b"alive", f"the child ended with {echo.returncode}"
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

    def measure(monitor, engine, steps, alive):
        looks.append(engine)
        return original(monitor, engine, steps, late_by(0.1 * (len(looks) > 2), alive))

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
    return lambda monitor, *looked: original(monitor, *looked[:-1], late_by(0.1, looked[-1]))


def scoring_slowly(original):
    """Each forward takes 3 s."""

    def do(*given):
        def alive():
            return given[-1]()

        return original(*given[:-1], late_by(3, alive))

    return do


ENGINE = "src.engines.training:TrainingEngine"
FAULTS = {
    "ema_off": (f"{ENGINE}.ema", lambda _: no_ema),
    "weight_decay_off": ("src.run.training:weight_decay", lambda _: lambda config, steps: lambda step: 0.0),
    "gradients_halved": (f"{ENGINE}._total", halved),
    "batch_doubled": (f"{ENGINE}.forward_backward", doubled),
    "nan_on_rank_1": (f"{ENGINE}.forward_backward", poisoned),
    "rank_1_fails": (f"{ENGINE}.step", failing),
    "rank_1_hangs": (f"{ENGINE}.step", hanging),
    "rank_1_never_joins": ("torch.distributed:init_process_group", absent),
    "with_a_child": (f"{ENGINE}.step", with_child),
    "slow_steps": (f"{ENGINE}.step", sluggish),
    "paced_steps": (f"{ENGINE}.step", paced),
    "slow_disk": ("src.checkpoints.write:_complete", slow),
    "slow_evaluation": ("src.evaluation.monitor:Monitor.measure", looking_slowly),
    "slow_last_evaluation": ("src.evaluation.monitor:Monitor.measure", last_look),
    "slow_validation": ("ssls.finetune.validation:Validation.measure", looking_slowly),
    "slow_scoring": ("ssls.finetune.results:predict", scoring_slowly),
    "slow_baseline": ("src.evaluation.monitor:Monitor.baseline", looking_slowly),
    "slow_probe": ("src.evaluation.monitor:Monitor._probe", partial(late_by, 3)),
    "slow_export": ("src.run.training:export_encoder", partial(late_by, 3)),
    "slow_fit": ("ssls.probe.train:fit_head", partial(late_by, 60)),
    "late_init": ("src.run.training:initial_weights", late),
}
"""What is replaced, and by what, made of the original."""


def sow(fault):
    place, make = FAULTS[fault]
    module, path = place.split(":")
    *owners, name = path.split(".")
    owner = reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, name, make(getattr(owner, name)))


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
