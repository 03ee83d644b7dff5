"""Contenders that are each measured by several figures, and compared with one of them.

As in `_harness.compare` they take turns, round after round and each round in another order. A
turn measures itself there, such as by a server in a process of its own, and returns its figures
by name. Reported are the median of each figure, how far the middle half spreads, and how many
times as good as the baseline's it is: the median of the rounds' ratios, and their middle half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from _harness import Bench, Spread, as_number, spread

__all__ = ["Figures", "Metric", "Table", "Turn", "tabulate", "take_turns"]

Figures = Mapping[str, float]
Turn = Callable[[], Figures]


@dataclass(frozen=True)
class Metric:
    """One of the figures that a turn returns.

    Args:
        name: Its key in them.
        title: What it is called in a table's head.
        unit: What stands behind its number, such as `/s`, `s` or `B`.
        more_is_better: Whether it is a rate, and no cost.
        compared: Whether to give ratios of it.
    """

    name: str
    title: str
    unit: str
    more_is_better: bool = False
    compared: bool = True


@dataclass(frozen=True)
class Table:
    """What the contenders' turns returned.

    Args:
        title: What was done.
        baseline: The contender that the others are compared with.
        metrics: The figures to show.
        turns: By contender, the figures of each round.
    """

    title: str
    baseline: str
    metrics: Sequence[Metric]
    turns: Mapping[str, Sequence[Figures]]

    def figure(self, contender: str, metric: Metric) -> Spread:
        """Return what a contender reached."""
        return spread([each[metric.name] for each in self.turns[contender]])

    def ratio(self, contender: str, metric: Metric) -> Spread | None:
        """Return how many times as good as the baseline it was; None where that means nothing."""
        pairs = [
            (mine[metric.name], theirs[metric.name])
            for mine, theirs in zip(self.turns[contender], self.turns[self.baseline], strict=True)
        ]
        if not metric.compared or any(min(pair) <= 0 for pair in pairs):
            return None
        if metric.more_is_better:
            return spread([mine / theirs for mine, theirs in pairs])
        return spread([theirs / mine for mine, theirs in pairs])


def take_turns(turns: Mapping[str, Turn], rounds: int) -> dict[str, list[Figures]]:
    """Call each of `turns` once a round, each round beginning with another."""
    figures: dict[str, list[Figures]] = {name: [] for name in turns}
    names = list(turns)
    for _ in range(rounds):
        for name in names:
            figures[name].append(turns[name]())
        names.append(names.pop(0))
    return figures


def tabulate(
    bench: Bench,
    title: str,
    turns: Mapping[str, Turn],
    metrics: Sequence[Metric],
    baseline: str,
) -> None:
    """Measure and print a table, if it is asked for.

    Args:
        bench: What the benchmark is run with.
        title: What the contenders do.
        turns: By contender, what measures it once.
        metrics: The figures to show of those that a turn returns.
        baseline: Who the others are compared with; the last contender when there is none such.
    """
    if not bench.wants(title) or not turns:
        return
    if baseline not in turns:
        baseline = list(turns)[-1]
    table = Table(title, baseline, metrics, take_turns(turns, bench.rounds))
    bench.report(
        text=lambda: _as_text(table),
        markdown=lambda: _as_markdown(table),
        data=lambda: {"title": title, "baseline": baseline, "turns": table.turns},
    )


def _figure(table: Table, contender: str, metric: Metric) -> str:
    figure = table.figure(contender, metric)
    around = 50 * (figure.high - figure.low) / figure.median if figure.median else 0
    return f"{as_number(figure.median, metric.unit)} ±{around:.0f} %"


def _ratio(table: Table, contender: str, metric: Metric) -> str:
    ratio = table.ratio(contender, metric)
    return f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else ""


def _rows(table: Table) -> Iterable[list[str]]:
    head = [table.title]
    for metric in table.metrics:
        head += [metric.title, f"x {table.baseline}"] if metric.compared else [metric.title]
    yield head
    for name in table.turns:
        row = [name]
        for metric in table.metrics:
            row.append(_figure(table, name, metric))
            if metric.compared:
                row.append(_ratio(table, name, metric))
        yield row


def _as_text(table: Table) -> Iterable[str]:
    rows = list(_rows(table))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield ""
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(
            f"{cell:<{width}}" if number == 0 else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(cells)
        ).rstrip()


def _as_markdown(table: Table) -> Iterable[str]:
    head, *rows = _rows(table)
    yield ""
    for row in head, ["---"] * len(head), *rows:
        yield f"| {' | '.join(row)} |"
