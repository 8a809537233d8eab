"""Outcomes as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from drill.outcome import Outcome
from stack.home import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- drills -->\n", "<!-- /drills -->"

COLUMNS = (
    "drill", "driver", "requests", "failed", "no reads, s", "no writes, s", "well after, s", "lost", "wrong",
    "live, ms",
)  # fmt: skip


def row(outcome: Outcome) -> tuple[str, ...]:
    """One drill's figures, as text."""
    figures = outcome.figures
    failed = ", ".join(f"{count} × {status}" for status, count in sorted(figures.failed.items())) or "0"
    return (
        outcome.drill.name, outcome.driver, f"{figures.requests:,}", failed, f"{figures.absent_reads:.1f}",
        f"{figures.absent_writes:.1f}", f"{figures.recovered:.1f}",
        f"{len(outcome.audit.lost)} of {outcome.audit.acknowledged:,}", str(len(outcome.wrong)),
        f"{1000 * outcome.witness.slowest_live:.0f}",
    )  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown, with columns that are aligned in a terminal, too."""
    rows = [COLUMNS, *map(row, outcomes)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(COLUMNS))]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def refresh(outcomes: Sequence[Outcome]) -> None:
    """Put the outcomes into the documentation: the table, what was missed, and what a drill has counted besides."""
    lines = []
    for outcome in outcomes:
        missed = "; ".join([*outcome.broken(), *outcome.late()])
        counted = "; ".join(f"{number:.3g} {what}" for what, number in outcome.notes.items())
        told = [text for text in (f"missed: {missed}" if missed else "", counted) if text]
        lines.append(f"- `{outcome.drill.name}` ({outcome.driver}): {outcome.drill.about}. {'. '.join(told)}".rstrip())
    text = PAGE.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:start]}\n{table(outcomes)}\n\n" + "\n".join(lines) + f"\n\n{text[end:]}")
