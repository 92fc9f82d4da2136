"""What a text tower is asked about each label, as files of configs/prompts/ have it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from src.config.section import Section

Sentence = Annotated[str, Field(pattern=r"\S")]
Sentences = Annotated[tuple[Sentence, ...], Field(min_length=1)]
ByLanguage = Annotated[dict[str, Sentences], Field(min_length=1)]


class LabelPrompts(Section):
    """Sentences about one label, by language."""

    positive: ByLanguage
    """What a report would say where the label is there."""
    negative: ByLanguage | None = None
    """What it would say where it is not; null compares with nothing: the score is then the likeness to the positive
    ones alone."""


class Prompts(Section):
    """Prompts for some labels of the shards."""

    templates: Sentences = ("{}",)
    """Each sentence is put into each of these, in the place of {}."""
    labels: Annotated[dict[str, LabelPrompts], Field(min_length=1)]
    """By the label's name in the index."""

    @model_validator(mode="after")
    def _templates_have_a_place(self) -> Self:
        if without := [template for template in self.templates if template.count("{}") != 1]:
            raise ValueError(f"templates: {without[0]!r} must have {{}} once, where the sentence goes")
        return self

    def sentences(self, prompts: ByLanguage, languages: tuple[str, ...] | None, label: str) -> list[str]:
        """All sentences of some languages, or of all, in the templates.

        Raises:
            ValueError: there is none in one of these languages.
        """
        chosen = [sentence for name in languages or tuple(prompts) if name in prompts for sentence in prompts[name]]
        missing = [name for name in languages or () if name not in prompts]
        if missing:
            asked = ", ".join(missing)
            raise ValueError(f"the prompts of {label} are in {', '.join(prompts)}, not in {asked}: ask for another")
        return [template.replace("{}", sentence) for template in self.templates for sentence in chosen]
