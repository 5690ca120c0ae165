"""Tables as text that is Markdown too."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.types import Table, Timing

__all__ = ["TIMING_COLUMNS", "growth_table", "milliseconds", "render", "timing_cells"]

TIMING_COLUMNS = ("median ms", "IQR", "p95", "p99")


def render(table: Table) -> str:
    """The table with its title and note, columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (table.columns, *table.rows)) for column in range(len(table.columns))]
    rule = ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:]))
    lines = [f"### {table.title}", ""]
    for row in (table.columns, rule, *table.rows):
        first, *others = row
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    if table.note:
        lines += ["", table.note]
    return "\n".join(lines)


def timing_cells(timing: Timing) -> tuple[str, ...]:
    """The cells below `TIMING_COLUMNS`."""
    return tuple(milliseconds(value) for value in (timing.median, timing.iqr, timing.p95, timing.p99))


def milliseconds(value: float) -> str:
    """Three significant digits, but no exponent: 0.123, 1.23, 12.3, 123, 1234."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def growth_table(title: str, heading: str, timings: Mapping[str, Mapping[str, Timing]], note: str = "") -> Table:
    """Medians in ms: a row for each setting, a column for each engine; "-" where an engine did not run.

    Args:
        title: Of the table.
        heading: Of the first column, which holds the settings.
        timings: By setting, then by engine.
        note: Below the table.
    """
    engines = list(dict.fromkeys(name for row in timings.values() for name in row))
    rows = tuple(
        (setting, *(milliseconds(row[name].median) if name in row else "-" for name in engines))
        for setting, row in timings.items()
    )
    return Table(title, (heading, *engines), rows, note)
