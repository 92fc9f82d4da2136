"""Names of the losses a config can choose; free of torch."""

from typing import Literal

RegressionKind = Literal["smooth_l1", "l1"]
