"""A tokenizer of one's own reports, for a text tower or decoder that is trained from nothing.

Byte-pair encoding of bytes (Radford et al. 2019): no letter is unknown, and the same texts give the same tokenizer, to
the byte, which the library's WordPiece does not. Case goes, umlauts and accents stay: in German and Swedish they make
other letters.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

PAD, UNKNOWN, BEGIN, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
ROLES = {
    "pad_token": PAD,
    "unk_token": UNKNOWN,
    "cls_token": BEGIN,
    "sep_token": END,
    "mask_token": MASK,
}
"""What transformers calls the special tokens; their ids are 0 to 4, in this order."""
LEAST = 256 + len(ROLES)
"""Every byte and the special tokens."""


def train_tokenizer(texts: Iterable[str | None], vocabulary: int) -> str:
    """The JSON of a tokenizer with at most so many tokens, of the texts that say something.

    Raises:
        ValueError: no text says anything.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    said = [text for text in texts if text is not None and text.strip()]
    if not said:
        raise ValueError("there is no report to train a tokenizer on: name the folder of one, or other shards")
    words = Tokenizer(models.BPE())
    words.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(ROLES.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(said, trainer)
    ends = [(name, words.token_to_id(name)) for name in (BEGIN, END)]
    words.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=ends)
    trained: str = words.to_str()
    return trained
