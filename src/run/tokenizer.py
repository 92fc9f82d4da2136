"""The tokenizer of a run: the one that its config names, or one of the reports that it trains on."""

from __future__ import annotations

from src.config.transforms import TokenizerConfig
from src.data.shards import Shards
from src.distributed.ranks import broadcast_object
from src.run.training import TrainingRun
from src.text.tokenize import Tokenize
from src.text.vocabulary import train_tokenizer


def tokenizer_of(run: TrainingRun, config: TokenizerConfig, shards: Shards) -> Tokenize:
    """Rank 0 trains, where no folder is named, on all reports of the split; the same shards give the same tokenizer,
    so that a run goes on with the one that it began with. A folder that another one has got since is refused by the
    checkpoints of the run. All ranks must call it.

    Raises:
        ValueError: there is no such tokenizer, no report, or no room for its letters in the vocabulary.
    """
    trained = None
    if config.tokenizer is None:
        trained = broadcast_object(train_tokenizer(shards.texts(), config.vocabulary) if run.ranks.first else None)
    tokenize = Tokenize(config, trained)
    run.rests_on("model.tokenizer", tokenize.sha256)
    return tokenize
