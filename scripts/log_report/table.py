"""Columns for people."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence["str | int | float"]


def lines(header: Sequence[str], rows: Sequence[Row], width: int | None = None) -> list[str]:
    """A table, numbers to the right; its lines are cut to `width` characters. Seconds have three decimals."""
    cells = [list(header), *([_text(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [bool(rows) and isinstance(rows[0][column], (int, float)) for column in range(len(header))]
    return [
        "  ".join(
            cell.rjust(size) if to_right else cell.ljust(size) for cell, size, to_right in zip(row, widths, right)
        ).rstrip()[:width]
        for row in cells
    ]


def printable(text: str) -> str:
    """The text without anything that a terminal might obey."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _text(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else printable(value)
