"""The kinds of panel that the dashboards are made of, and a dashboard's frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from grafana_foundation_sdk.builders import common as commons
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel: TypeAlias = Builder[dashboard.Panel]
Query: TypeAlias = tuple[str, str]
"""An expression and its legend."""
Steps: TypeAlias = Sequence[tuple[str, float]]
"""Colours and the values from which they hold; below the first it is green."""

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "sluice"
NOTHING_YET = dashboard.SpecialValueMap(
    options=dashboard.DashboardSpecialValueMapOptions(
        match=dashboard.SpecialValueMatch.NULL_AND_NAN, result=dashboard.ValueMappingResult(text="no traffic")
    )
)
"""A percentile of nothing is not a number, and not 0 either."""
UP_OR_DOWN = dashboard.ValueMap(
    options={
        "0": dashboard.ValueMappingResult(text="down", color="red"),
        "1": dashboard.ValueMappingResult(text="up", color="green"),
    }
)


def limits(steps: Steps, base: str = "green") -> dashboards.ThresholdsConfig:
    first = dashboard.Threshold(value=None, color=base)
    others = [dashboard.Threshold(value=value, color=color) for color, value in steps]
    return dashboards.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps([first, *others])


def _targets(queries: Sequence[Query]) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().datasource(SOURCE).ref_id(name).expr(expression).legend_format(legend).range()
        for name, (expression, legend) in zip("ABCDEFGH", queries, strict=False)
    ]


def number(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    steps: Steps = (),
    base: str = "green",
    mappings: Sequence[dashboard.ValueMapping] = (NOTHING_YET,),
    width: int = 3,
    names: bool = False,
) -> Panel:
    """What is true now, large; with `names`, one for each series."""
    text = common.BigValueTextMode.VALUE_AND_NAME if names else common.BigValueTextMode.VALUE
    panel = (
        stat.Panel().title(title).description(description).datasource(SOURCE).unit(unit).height(4).span(width)
        .thresholds(limits(steps, base)).mappings(list(mappings)).text_mode(text)
        .color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(commons.ReduceDataOptions().calcs(["last"]))  # NaN is an answer too
    )  # fmt: skip
    for target in _targets(queries):
        panel = panel.with_target(target)
    return panel


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    steps: Steps = (),
    base: str = "green",
    stacked: bool = False,
    maximum: float | None = None,
    width: int = 8,
) -> Panel:
    """Lines over time; a dashed line where a threshold is."""
    style = common.GraphThresholdsStyleMode.DASHED if steps else common.GraphThresholdsStyleMode.OFF
    panel = (
        timeseries.Panel().title(title).description(description).datasource(SOURCE).unit(unit).height(8).span(width)
        .min(0).line_width(1).fill_opacity(25 if stacked else 8).show_points(common.VisibilityMode.NEVER)
        .thresholds(limits(steps, base)).thresholds_style(commons.GraphThresholdsStyleConfig().mode(style))
        .tooltip(commons.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .legend(
            commons.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM).show_legend(True)
        )
    )  # fmt: skip
    if stacked:
        panel = panel.stacking(commons.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if maximum is not None:
        panel = panel.axis_soft_max(maximum)
    for target in _targets(queries):
        panel = panel.with_target(target)
    return panel


def heat(title: str, description: str, expression: str, *, unit: str = "s", width: int = 8) -> Panel:
    """A histogram's buckets over time: the darker, the more observations."""
    query = prometheus.Dataquery().datasource(SOURCE).ref_id("A").expr(expression).legend_format("{{le}}").range()
    return (
        heatmap.Panel().title(title).description(description).datasource(SOURCE).unit(unit).height(8).span(width)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).fill("dark-orange")
            .scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .cell_values(heatmap.CellValues().unit("short").decimals(0))
        .filter_values(heatmap.FilterValueRange().le(1e-9))  # empty cells stay blank
        .with_target(query.format(PromQueryFormat.HEATMAP))
    )  # fmt: skip


def variable(name: str, label: str, metric: str, source_label: str) -> dashboards.QueryVariable:
    """A choice among the values of a label; all of them at first."""
    everything = dashboard.VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboards.QueryVariable(name).label(label).datasource(SOURCE)
        .query({"query": f"label_values({metric}, {source_label})", "refId": name})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(dashboard.VariableSort.NUMERICAL_ASC)
        .multi(True).include_all(True).all_value(".*").current(everything)
    )  # fmt: skip


CONTAINERS = variable("instance", "Container", "sluice_worker_ready", "instance")
WORKERS = variable("worker", "Worker", 'sluice_worker_ready{instance=~"$instance"}', "worker")
POOL_MEMBERS = variable("member", "Member", 'db_client_connection_max{server_address!="*"}', "server_address")
MEMBERS = variable("member", "Member", "mongodb_member_up", "member")


def board(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[dashboards.QueryVariable],
    rows: Sequence[tuple[str, Sequence[Panel]]],
) -> dashboard.Dashboard:
    """A dashboard with its rows, linked with every other one of Sluice's; time and variables go along."""
    others = (
        dashboards.DashboardLink("Sluice").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG])
        .as_dropdown(False).include_vars(True).keep_time(True)
    )  # fmt: skip
    source = dashboards.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    made = (
        dashboards.Dashboard(title).uid(uid).description(description).tags([TAG]).readonly().timezone("browser")
        .time("now-30m", "now").refresh("10s").tooltip(dashboard.DashboardCursorSync.CROSSHAIR).link(others)
        .with_variable(source)
    )  # fmt: skip
    for choice in variables:
        made = made.with_variable(choice)
    for name, panels in rows:
        made = made.with_row(dashboards.Row(name))
        for panel in panels:
            made = made.with_panel(panel)
    built = made.build()
    for identity, built_panel in enumerate(built.panels or (), start=1):
        built_panel.id_val = identity  # Grafana would give them out at every load, and links to panels would break
    return built
