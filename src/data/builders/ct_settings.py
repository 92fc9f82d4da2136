"""What becomes of each volume, as flags or a YAML say it, with one check and one kind of error for both."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from src.config.explain import explanation
from src.config.json_schema import SchemaMap
from src.config.section import Section
from src.config.tree import Tree
from src.config.yaml_text import ConfigError, parse_yaml
from src.data.builders.arrays import ArrayFiles
from src.data.builders.ct import ConvertCT
from src.data.builders.grid import AIR, KEEP, ORIENTATION, THICKEST, THINNEST, Grid
from src.data.builders.hounsfield import Units
from src.data.builders.volumes import is_orientation
from src.data.modalities.ct import DEFAULT_WINDOWS, MOST_CHANNELS
from src.transforms.ct_windows import Window, parse_window


def _letters(text: str) -> str:
    if text != KEEP and not is_orientation(text):
        raise ValueError(
            f"must be {KEEP} or three letters of different axes, one each of S or I, P or A, L or R, as in SPL; got"
            f" {text}"
        )
    return text


def _stated(text: str) -> str:
    if not is_orientation(text):
        raise ValueError(f"must be three letters, one each of S or I, P or A, L or R, as in RAS; got {text}")
    return text


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if not span[0] < span[1] or not all(map(math.isfinite, span)):
        raise ValueError(f"must be LOW HIGH with LOW < HIGH, got {span[0]:g} {span[1]:g}")
    return span


def _window(text: str) -> str:
    parse_window(text)
    return text


def _told_apart(windows: tuple[str, ...]) -> tuple[str, ...]:
    names = [parse_window(text).name for text in windows]
    if not names:
        raise ValueError("must name a window at least, as in lung")
    if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
        raise ValueError(f"must have a name of its own for each, got two called {repeated[0]}")
    return windows


Millimetres = Annotated[float, Field(ge=THINNEST, le=THICKEST)]
Voxels = Annotated[int, Field(ge=2, le=4096)]
Finite = Annotated[float, Field(ge=-1e6, le=1e6)]
Span = Annotated[tuple[float, float], AfterValidator(_rising)]
Spacing = tuple[Millimetres, Millimetres, Millimetres]


class CTSettings(Section):
    """The settings of a build; each is a flag, and a key of the YAML that --settings names."""

    units: Literal["hu", "unit_interval", "rescale"]
    """What the values of the files are: HU, an interval that stands for HU, or stored values to be rescaled."""
    slope: Finite | None = None
    intercept: Finite | None = None
    interval: Span | None = None
    interval_hu: Span | None = None
    unchecked_units: bool = False
    array: str | None = None
    channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS)] = 1
    source_orientation: Annotated[str, AfterValidator(_stated)] | None = None
    source_spacing: Spacing | None = None
    orientation: Annotated[str, AfterValidator(_letters)] = ORIENTATION
    spacing: Spacing | None = None
    size: tuple[Voxels, Voxels, Voxels] | None = None
    crop: Literal["center", "never"] = "center"
    pad_value: Annotated[float, Field(ge=-32768.0, le=32767.0)] = AIR
    keep_float: bool = False
    windows: Annotated[tuple[Annotated[str, AfterValidator(_window)], ...], AfterValidator(_told_apart)] = tuple(
        window.name for window in DEFAULT_WINDOWS
    )
    compress: bool = False

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.units == "unit_interval" and self.interval_hu is None:
            raise ValueError(
                "units unit_interval needs interval_hu: the HU that the ends of the interval stand for, as in"
                " --interval-hu -1000 1000"
            )
        if self.units != "unit_interval" and (self.interval is not None or self.interval_hu is not None):
            raise ValueError(f"interval and interval_hu do nothing for units {self.units}: leave them out")
        if self.units != "rescale" and (self.slope is not None or self.intercept is not None):
            raise ValueError(f"slope and intercept do nothing for units {self.units}: leave them out")
        if self.slope == 0:
            raise ValueError("slope 0 would make all values the same: give another")
        if self.size is None and ("crop" in self.model_fields_set or "pad_value" in self.model_fields_set):
            raise ValueError("crop and pad_value do nothing without size: leave them out")
        return self

    def shown_windows(self) -> tuple[Window, ...]:
        """What the index tells."""
        return tuple(map(parse_window, self.windows))

    def convert(self, slope_column: str | None, intercept_column: str | None) -> ConvertCT:
        """What does it."""
        units = Units(
            self.units,
            self.slope,
            self.intercept,
            self.interval or (0.0, 1.0),
            self.interval_hu,
            not self.unchecked_units,
        )
        grid = Grid(self.orientation, self.spacing, self.size, self.crop, self.pad_value, self.keep_float)
        arrays = ArrayFiles(self.array, self.source_orientation, self.source_spacing)
        return ConvertCT(units, grid, arrays, slope_column, intercept_column, self.compress, self.channels)


def read_settings(file: Path | None, flags: dict[str, Any]) -> CTSettings:
    """The settings of a YAML, with flags over them.

    Raises:
        ConfigError: the file can't be read, or a key or value is wrong; says which, and where it is from.
    """
    tree = Tree.of("the command line", {}, "the command line") if file is None else _read(file)
    for name, value in flags.items():
        tree = tree.under(Tree.of(tree.file, {name: value}, "--" + name.replace("_", "-")))
    try:
        return CTSettings.model_validate_json(json.dumps(tree.values))
    except ValidationError as error:
        raise ConfigError(explanation(error, tree, SchemaMap(CTSettings))) from None


def _read(file: Path) -> Tree:
    try:
        values = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise ConfigError(f"{file} can't be read ({error.strerror}): name a YAML file with --settings") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text: name a YAML file with --settings") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds no lines `key: value`: name a YAML file with --settings")
    return Tree.of(str(file), values, str(file))
