"""The config of an experiment: typed sections, loading with clear errors, and what makes two configs one run."""

from src.config.experiment import ExperimentConfig, RunConfig
from src.config.identity import ABSENT, config_hash, first_difference, identity
from src.config.json_schema import json_schema
from src.config.load import dump_config, load_config, load_transform
from src.config.section import Section
from src.config.yaml_text import ConfigError

__all__ = [
    "ABSENT",
    "ConfigError",
    "ExperimentConfig",
    "RunConfig",
    "Section",
    "config_hash",
    "dump_config",
    "first_difference",
    "identity",
    "json_schema",
    "load_config",
    "load_transform",
]
