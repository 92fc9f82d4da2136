"""Which evaluation was the best so far, and whether to go on: what a checkpoint keeps of the scores of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Best:
    """Follows one score over the evaluations of a run; its `state` is JSON and goes into every checkpoint.

    The best is the first of those with the highest score (the lowest, unless `higher`). Patience begins anew at a score
    that is more than `min_delta` better than the one at which it last began.
    """

    higher: bool
    of: str
    """What the score is, of which records: another one can't be compared with it."""
    patience: int | None = None
    """So many evaluations in a row without progress end the run; None never ends it."""
    min_delta: float = 0.0
    score: float | None = None
    step: int | None = None
    """Steps that were completed at the best."""
    begun: float | None = None
    """The score at which patience last began."""
    waited: int = 0
    """Evaluations since."""

    def update(self, score: float, step: int) -> bool:
        """Take in the score after `step` completed steps; whether it is the best. One that is NaN is no progress."""
        best = self._better(score, self.score, 0.0)
        if best:
            self.score, self.step = score, step
        if self._better(score, self.begun, self.min_delta):
            self.begun, self.waited = score, 0
        else:
            self.waited += 1
        return best

    def _better(self, score: float, other: float | None, least: float) -> bool:
        if math.isnan(score):
            return False
        return other is None or (score - other if self.higher else other - score) > least

    @property
    def ended(self) -> bool:
        """Whether patience is at its end."""
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {"of": self.of, "score": self.score, "step": self.step, "begun": self.begun, "waited": self.waited}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: it is of another score.
        """
        if state["of"] != self.of:
            raise ValueError(
                f"evaluation: the run has chosen its best weights by {state['of']}, which {self.of} can't be compared "
                "with: set it back, or name a new logging.folder"
            )
        self.score, self.step = state["score"], state["step"]
        self.begun, self.waited = state["begun"], state["waited"]
