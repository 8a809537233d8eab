"""Outcomes as a table for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from drill.catalogue import DRILLS
from drill.outcome import Outcome
from stack.home import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- drills -->\n", "<!-- /drills -->"
DRIVERS = ("pymongo", "motor")
_NOTE = re.compile(r"^- `([^`]+)` \((\w+)\): .*$", re.MULTILINE)

COLUMNS = (
    "drill", "driver", "requests", "failed", "no reads, s", "no writes, s", "well after, s", "lost", "wrong",
    "live, ms",
)  # fmt: skip


def row(outcome: Outcome) -> tuple[str, ...]:
    """One drill's figures, as text."""
    figures, audit = outcome.figures, outcome.audit
    failed = ", ".join(f"{count} × {status}" for status, count in sorted(figures.failed.items())) or "0"
    return (
        outcome.drill.name, outcome.driver, f"{figures.requests:,}", failed, f"{figures.absent_reads:.1f}",
        f"{figures.absent_writes:.1f}", f"{figures.recovered:.1f}",
        f"{len(audit.lost)} of {audit.acknowledged:,}" if audit else "not audited", str(len(outcome.wrong)),
        f"{1000 * outcome.witness.slowest_live:.0f}",
    )  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown, with columns that are aligned in a terminal, too."""
    return _aligned([row(outcome) for outcome in outcomes])


def _aligned(body: Sequence[tuple[str, ...]]) -> str:
    rows = [COLUMNS, *body]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(COLUMNS))]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def refresh(outcomes: Sequence[Outcome], page: Path = PAGE) -> None:
    """Put the outcomes into the documentation: the table, and below it what was missed, and what was counted besides.

    What the page says of drills that weren't run now stays.
    """
    text = page.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    rows = {(name, driver): cells for cells in _rows(text[start:end]) for name, driver in [cells[:2]]}
    notes = {(match[1], match[2]): match[0] for match in _NOTE.finditer(text[start:end])}
    for outcome in outcomes:
        key = outcome.drill.name, outcome.driver
        rows[key] = row(outcome)
        notes.pop(key, None)
        if said := _said(outcome):
            notes[key] = f"- `{key[0]}` ({key[1]}): {said}"
    order = {(name, driver): number for number, (name, driver) in enumerate(product(DRILLS, DRIVERS))}
    kept = sorted(rows.keys() & order.keys(), key=order.__getitem__)
    body = "\n".join(notes[key] for key in kept if key in notes)
    picture = page.with_name("soak.png")
    if series := next((outcome.series for outcome in reversed(outcomes) if outcome.series), None):
        from drill.plot import draw  # matplotlib takes its time, and is not everywhere

        draw(series, picture)
    if picture.exists():
        body += f"\n\n![Memory, descriptors, connections, files and latency over the time of the soak]({picture.name})"
    page.write_text(f"{text[:start]}\n{_aligned([rows[key] for key in kept])}\n\n{body}\n\n{text[end:]}")


def _rows(text: str) -> list[tuple[str, ...]]:
    """Those of a table that `table` has made, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[1:]]


def _said(outcome: Outcome) -> str:
    missed = "; ".join([*outcome.broken(), *outcome.late()])
    counted = "; ".join(f"{_plain(number)} {what}" for what, number in outcome.notes.items())
    return ". ".join(text for text in (counted, f"Missed: {missed}" if missed else "") if text)


def _plain(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
