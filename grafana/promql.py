"""Pieces of PromQL that the dashboards share."""

from __future__ import annotations

WINDOW = "$__rate_interval"
"""Grafana's own choice: at least four scrapes, at least one step of the panel."""

WORKER = 'instance=~"$instance",worker=~"$worker"'
POOL = f'{WORKER},server_address=~"$member|[*]"'
"""With Motor one queue stands before all members: `*` belongs to each."""
MEMBER = 'member=~"$member"'


def rate(metric: str, selector: str = "", by: str = "") -> str:
    """Events per second of a counter, summed over everything but the labels `by`."""
    summed = f"sum by ({by})" if by else "sum"
    return f"{summed}(rate({metric}{{{selector}}}[{WINDOW}]))"


def quantile(share: float, histogram: str, selector: str = "", by: str = "") -> str:
    """The duration below which `share` of the observations lie; NaN where nothing was observed."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', selector, labels)})"


def buckets(histogram: str, selector: str = "") -> str:
    """A heatmap's cells: observations per bucket and step."""
    return f"sum by (le) (increase({histogram}_bucket{{{selector}}}[{WINDOW}]))"


def or_zero(expression: str, label: str = "", name: str = "none") -> str:
    """0 while `expression` has no series at all, since what has never happened happened 0 times.

    The zero's series has `label` set to `name`, for the legend.
    """
    zero = f'label_replace(vector(0), "{label}", "{name}", "", "")' if label else "vector(0)"
    return f"{expression} or on () {zero}"


def top(expression: str) -> str:
    """The ten largest: a legend beyond that helps nobody."""
    return f"topk(10, {expression})"
