"""Tables of data, rendered as text, Markdown, CSV and JSON: the one place for it."""

import csv
import io
import itertools
import json
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNKNOWN = "-"

# What stands for our signs where only ASCII can be printed.
_SIGNS = "·×−–└’“”…±²³Σ"
_ASCII = (*'*x--`\'""', "...", "+/-", "^2", "^3", "sum")
_TO_ASCII = str.maketrans(dict(zip(_SIGNS, _ASCII, strict=True)))


@dataclass(frozen=True)
class Column:
    """One column: where its values come from, and how people read them."""

    key: str  # in the rows, in CSV and in JSON
    heading: str  # in text and Markdown
    show: Callable[[Any], str] = str  # from a value that is not None
    right: bool = True  # numbers stand right
    optional: int = 0  # above 0: may be left out of narrow text, the highest first
    unknown: str = UNKNOWN  # in the place of None


@dataclass(frozen=True)
class Table:
    """Rows of data, all for programs (CSV, JSON), and the columns that people see."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    title: str = ""
    notes: Sequence[str] = ()  # lines under the table

    def cells(self, columns: Sequence[Column] | None = None) -> list[list[str]]:
        """Return the text of each cell of some columns (default: all), row by row."""
        shown = self.columns if columns is None else columns
        return [
            [c.unknown if row[c.key] is None else c.show(row[c.key]) for c in shown]
            for row in self.rows
        ]

    def to_text(self, width: int | None = None, ascii: bool | None = None) -> str:
        """Render in `width` columns, by default those of the terminal.

        Where a table does not fit, optional columns are left out, then each row becomes
        a block of lines. `ascii` is by default what standard output needs.
        """
        width = terminal_width() if width is None else width
        if width is not None and width < 1:
            raise ValueError(f"width must be 1 or more; received {width}")
        ascii = not _prints(_SIGNS) if ascii is None else ascii
        plain = to_ascii if ascii else str
        body = self._body(width, plain) if self.rows else []
        # Where any width will do, the notes are as wide as the table.
        beside = width or max([72, *map(len, body)])
        lines = [*_wrap(plain(self.title), beside), *body]
        for note in self.notes:
            lines += _wrap(plain(note), beside)
        return "\n".join(lines)

    def _body(self, width, plain) -> list[str]:
        columns = list(self.columns)
        while (lines := _lines(columns, self.cells(columns), plain, width)) is None:
            least = max(columns, key=lambda column: column.optional, default=None)
            if least is None or not least.optional:
                break
            columns.remove(least)
        if lines is None:  # a block for each row
            lines = []
            for row in self.cells():
                for column, cell in zip(self.columns, row, strict=True):
                    lines += _wrap(plain(f"{column.heading}: {cell}"), width)
                lines.append("")
            return lines[:-1]
        if left_out := [c.heading for c in self.columns if c not in columns]:
            text = f"(left out, as {width} columns are narrow: {', '.join(left_out)})"
            lines += _wrap(plain(text), width)
        return lines

    def __str__(self) -> str:
        return self.to_text()

    def to_markdown(self) -> str:
        """Render as a Markdown table, title above and notes below."""

        def line(cells):
            return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

        rule = ["--:" if c.right else ":--" for c in self.columns]
        rows = [[c.heading for c in self.columns], rule, *self.cells()]
        blocks = [f"**{self.title}**"] if self.title else []
        blocks.append("\n".join(map(line, rows)))
        blocks += ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n\n".join(blocks) + "\n"

    def to_csv(self) -> str:
        """Render as CSV: a line of keys, then one line a row; unknown is empty."""
        out = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(out, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            for row in self.rows:
                writer.writerow({key: _plain(value) for key, value in row.items()})
        return out.getvalue()

    def to_json(self, **beside: Any) -> str:
        """Render as one JSON object: what is given beside, and `rows`."""
        data = {**beside, "rows": [dict(row) for row in self.rows]}
        return json.dumps(data, indent=2, ensure_ascii=False)


class Tabled:
    """What people read as a table: its class says which, by `table()`."""

    def table(self) -> Table:
        """Return the table."""
        raise NotImplementedError

    def to_text(self, width: int | None = None, ascii: bool | None = None) -> str:
        """Render for a terminal; see `Table.to_text`."""
        return self.table().to_text(width, ascii)

    def __str__(self) -> str:
        return self.to_text()

    def to_markdown(self) -> str:
        """Render as a Markdown table, the notes below."""
        return self.table().to_markdown()


def to_ascii(text: str) -> str:
    """Replace what is not ASCII: "5·5" becomes "5*5"; what has no twin, "?"."""
    return text.translate(_TO_ASCII).encode("ascii", "replace").decode()


def terminal_width() -> int | None:
    """Return the columns of the terminal, COLUMNS first; None where there is none."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):  # a file, a pipe, a notebook
        return None


def format_bytes(count: int) -> str:
    """Write a number of bytes for people: 132,480 is "129.4 KiB"."""
    if count < 1024:
        return f"{count} B"
    power = min((int(count).bit_length() - 1) // 10, 5)
    return f"{count / 1024**power:,.1f} {'KMGTP'[power - 1]}iB"


def _lines(columns, rows, plain, width: int | None) -> list[str] | None:
    """Lay out headings and rows of texts; None where a word would not fit."""
    rows = [[c.heading for c in columns], *rows]
    rows = [[plain(text) for text in row] for row in rows]
    turned = list(zip(*rows, strict=True))
    words = [max(map(len, " ".join(texts).split()), default=0) for texts in turned]
    widths = [max(map(len, texts)) for texts in turned]
    space = sum(widths) if width is None else width - 2 * (len(columns) - 1)
    if sum(words) > space:
        return None
    while sum(widths) > space:
        # Take from the column that has most to give.
        slack = [w - least for w, least in zip(widths, words, strict=True)]
        widths[slack.index(max(slack))] -= 1
    lines = []
    for row in rows:
        fitted = zip(row, widths, strict=True)
        cells = [_wrap(text, w) if len(text) > w else [text] for text, w in fitted]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            places = zip(columns, parts, widths, strict=True)
            aligned = (p.rjust(w) if c.right else p.ljust(w) for c, p, w in places)
            lines.append("  ".join(aligned).rstrip())
        if row is rows[0]:
            lines.append("  ".join("-" * w for w in widths))
    return lines


def _prints(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _wrap(text: str, width: int) -> list[str]:
    wrap = textwrap.TextWrapper(width, break_on_hyphens=False).wrap
    return [part for line in text.splitlines() for part in wrap(line) or [""]]


def _plain(value: Any) -> Any:
    """A cell of CSV: numbers as they are, sequences and tables as JSON."""
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False)
    return int(value) if type(value) is not bool and isinstance(value, int) else value
