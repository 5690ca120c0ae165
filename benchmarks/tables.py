"""Plain-text tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.types import Table, Timing

__all__ = ["TIMING_COLUMNS", "growth_table", "milliseconds", "render", "timing_cells"]

TIMING_COLUMNS = ("median ms", "IQR", "p95", "p99")


def render(table: Table) -> str:
    """The table with its title and note; the first column is left-aligned, the others right-aligned."""
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
    """Three significant digits without an exponent: 0.123, 1.23, 12.3, 123, 1234."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def growth_table(title: str, heading: str, timings: Mapping[str, Mapping[str, Timing]], note: str = "") -> Table:
    """Medians in ms: one row per setting, one column per engine; "-" if an engine did not run.

    Args:
        title: Title of the table.
        heading: Heading of the first column, which contains the settings.
        timings: Timings by setting and engine.
        note: Note below the table.
    """
    engines = list(dict.fromkeys(name for row in timings.values() for name in row))
    rows = tuple(
        (setting, *(milliseconds(row[name].median) if name in row else "-" for name in engines))
        for setting, row in timings.items()
    )
    return Table(title, (heading, *engines), rows, note)
