"""A page as a strict reader sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input"}
REFERENCES = {"href", "src", "xlink:href", "data", "action", "poster", "srcset"}


@dataclass
class Cell:
    """A th or td."""

    tag: str
    part: str
    """thead or tbody."""
    scope: str | None
    text: str = ""


@dataclass
class Table:
    """What a screen reader tells of a table."""

    tags: list[str] = field(default_factory=list)
    """All that are in it, in order."""
    caption: str = ""
    rows: list[list[Cell]] = field(default_factory=list)


class Page(HTMLParser):
    """Parses HTML that closes what it opens; keeps text, ids, references and tables."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[tuple[str, str]] = []
        self.classes: list[str] = []
        self.words: list[str] = []
        self.tables: list[Table] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    @property
    def text(self) -> str:
        """Everything that is read, with single blanks."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name == "class":
                self.classes.extend(value.split())
            elif name in REFERENCES:
                self.references.append((tag, value))
            assert not name.startswith("on"), f"{tag} has {name}"
        if tag not in VOID:
            self.open.append(tag)
        self._tabulate(tag, dict(attributes))

    def _tabulate(self, tag, attributes):
        if tag == "table":
            self.tables.append(Table())
        elif "table" in self.open:
            table = self.tables[-1]
            table.tags.append(tag)
            if tag == "tr":
                table.rows.append([])
            elif tag in ("th", "td"):
                table.rows[-1].append(Cell(tag, self.open[-3], attributes.get("scope")))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        if "caption" in self.open:
            self.tables[-1].caption += data
        elif {"th", "td"} & set(self.open):
            self.tables[-1].rows[-1][-1].text += data
