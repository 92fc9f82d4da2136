"""Texts to token ids, by a tokenizer that Hugging Face's libraries can read.

By transformers, which the text towers need anyway, and not by tokenizers alone: many clinical BERTs are folders with a
vocab.txt and no tokenizer.json, which only transformers reads.
"""

# B batch, L tokens

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.transforms import TokenizerConfig
from src.text.special import SpecialTokens
from src.text.vocabulary import ROLES


class Tokenize:
    """Texts to rows of one length, so that no shape depends on the texts at hand; runs no code of a folder.

    `trained` is the JSON of one's own tokenizer (src/text/vocabulary.py), where the config names no folder.

    Raises:
        ValueError: there is no such tokenizer, or it would need code of its own.
    """

    def __init__(self, config: TokenizerConfig, trained: str | None = None) -> None:
        assert (config.tokenizer is None) == (trained is not None), "a folder, or what was trained"
        # threads of its own would fight with those of other loader processes, and hang in a forked one
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.length = config.length
        self.name = config.tokenizer or "the tokenizer of these reports"
        self._tokenizer = _read(self.name) if trained is None else _own(trained)
        least = self._tokenizer.num_special_tokens_to_add()
        if self.length <= least:
            raise ValueError(
                f"length is {self.length}, but {self.name} adds {least} special tokens to each text: give more"
            )
        pad = self._tokenizer.pad_token_id
        self._pad = 0 if pad is None else pad  # any id will do where keep is False

    @property
    def sha256(self) -> str:
        """Of all that decides which ids a text has, less `length`, which the config tells."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:  # one that is written in Python
            told = {"vocabulary": self._tokenizer.get_vocab(), "kind": type(self._tokenizer).__name__}
        else:
            told = json.loads(backend.to_str()) | {"truncation": None, "padding": None}  # which calls set
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Tokens that it knows: ids are below this."""
        return len(self._tokenizer)

    @property
    def ends(self) -> tuple[int, int]:
        """The ids with which a text begins and ends.

        Raises:
            ValueError: the tokenizer has no such tokens.
        """
        begin = self._tokenizer.cls_token_id if self._tokenizer.bos_token_id is None else self._tokenizer.bos_token_id
        end = self._tokenizer.sep_token_id if self._tokenizer.eos_token_id is None else self._tokenizer.eos_token_id
        if begin is None or end is None:
            raise ValueError(f"{self.name} has no tokens for the begin and end of a text: give one that has them")
        return begin, end

    @property
    def special(self) -> SpecialTokens:
        """The tokens that are no words, for what writes texts.

        Raises:
            ValueError: as `ends`.
        """
        begin, end = self.ends
        pad, mask = self._tokenizer.pad_token_id, self._tokenizer.mask_token_id
        return SpecialTokens(begin, end, end if pad is None else pad, begin if mask is None else mask, self.size)

    def text(self, ids: Sequence[int]) -> str:
        """What ids say, without special tokens."""
        said: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return said.strip()

    def save(self, folder: Path) -> None:
        """Write it where any user of transformers can read it, and `TokenizerConfig.tokenizer` can name it."""
        self._tokenizer.save_pretrained(folder)

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids [B, L] and which of them are of the text or special [B, L]; of an empty text none is.

        Raises:
            ValueError: the tokenizer fails at a text.
        """
        ids_BL = np.full((len(texts), self.length), self._pad, np.int64)
        keep_BL = np.zeros(ids_BL.shape, np.bool_)
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if rows:
            for row, ids in zip(rows, self._ids([texts[row] for row in rows]), strict=True):
                ids_BL[row, : len(ids)], keep_BL[row, : len(ids)] = ids, True
        return ids_BL, keep_BL

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            found: list[list[int]] = self._tokenizer(texts, truncation=True, max_length=self.length)["input_ids"]
        except Exception as error:  # a bare one where there is no token for what is unknown
            raise ValueError(
                f"{self.name} can't tokenise a text of this batch ({_cause(error)}): give a tokenizer that has a token"
                " for what it does not know"
            ) from error
        return found


def _read(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        # without trust_remote_code=False it asks at the terminal, and runs the folder's own code after a yes
        return AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library has no type of its own for what it can't read
        raise ValueError(
            f"{name} is no tokenizer that can be read ({_cause(error)}): name the folder of one, with its"
            " tokenizer.json or vocab.txt"
        ) from error


def _own(trained: str) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(trained), **ROLES)


def _cause(error: Exception) -> str:
    """An error's type and the first line of what it says, if it says something."""
    return " ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
