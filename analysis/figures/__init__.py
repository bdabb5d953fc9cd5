"""Figures of a study: tidy frames in, a `matplotlib.figure.Figure` out, sized for a paper column.

Every function here uses matplotlib's object-oriented interface: nothing is registered with pyplot, so figures
can be made in any number, in any thread, and are freed when they are dropped. Series are told apart by colour
*and* by marker and line style. `to_svg` turns a figure into SVG text that can be put into a page.
"""

from .blocks import block_heat_map, blocks_at_the_end
from .correlation import correlation_scatter
from .forest import forest
from .style import COLUMN, PAGE, schedule_order, series_styles, style
from .svg import to_file, to_svg
from .traces import trace_over_steps, trace_with_validation
from .transfer import language_grid, relative_performance
from .unfreezing import order_against_top_down, unfreezing_order

__all__ = [
    "COLUMN",
    "PAGE",
    "block_heat_map",
    "blocks_at_the_end",
    "correlation_scatter",
    "forest",
    "language_grid",
    "order_against_top_down",
    "relative_performance",
    "schedule_order",
    "series_styles",
    "style",
    "to_file",
    "to_svg",
    "trace_over_steps",
    "trace_with_validation",
    "unfreezing_order",
]
