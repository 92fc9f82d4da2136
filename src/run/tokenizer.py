"""The tokenizer of a run: the one that its config names, or one of the reports that it trains on."""

from __future__ import annotations

from src.config.transforms import TokenizerConfig
from src.data.shards import Shards
from src.distributed.ranks import broadcast_object
from src.run.run import Run
from src.text.tokenize import Tokenize
from src.text.vocabulary import train_tokenizer


def tokenizer_of(run: Run, config: TokenizerConfig, shards: Shards) -> Tokenize:
    """Rank 0 trains, where no folder is named, on all reports of the split; the same shards give the same tokenizer,
    so that a run goes on with the one that it began with. All ranks must call it.

    Raises:
        ValueError: there is no such tokenizer, no report, or no room for its letters in the vocabulary.
    """
    if config.tokenizer is not None:
        return Tokenize(config)
    trained = train_tokenizer(shards.texts(), config.vocabulary) if run.ranks.first else None
    return Tokenize(config, broadcast_object(trained))
