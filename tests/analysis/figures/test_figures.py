"""What a figure shows is what the frame says; it keeps its size, its settings and its names to itself."""

import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fishlens.analysis import figures
from fishlens.analysis.figures import fonts as font_list
from fishlens.analysis.figures.style import GRID, INK, block_labels, shortened
from fishlens.analysis.figures.svg import inline_svg
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fishlens.errors import InputError

BLOCKS = [f"layer.{i}" for i in range(4)]


@pytest.fixture
def curves():
    rows = [
        {
            "schedule": schedule,
            "run": f"{schedule}-{seed}",
            "step": step,
            "value": (1 + seed) * np.exp(-step / 50) + 0.1,
        }
        for schedule, seed, step in itertools.product(("standard", "fun"), range(3), range(0, 200, 10))
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def order():
    places = {"gu": [4, 3, 2, 1], "fun": [4, 2, 3, 1]}
    return pd.DataFrame(
        [
            {"schedule": s, "run": f"{s}-0", "block": block, "position": place}
            for s, of in places.items()
            for block, place in zip(BLOCKS, of, strict=True)
        ]
    )


def all_figures(curves, order):
    fisher = pd.DataFrame(
        [{"schedule": "fun", "step": s, "block": b, "trace": 1.0 + s} for s in (0, 10) for b in BLOCKS]
    )
    scores = pd.DataFrame(
        [("standard", "de", 60), ("standard", "sw", 40), ("fun", "de", 61), ("fun", "sw", 43)],
        columns=["schedule", "language", "value"],
    )
    differences = pd.DataFrame(
        {"outcome": ["average"], "schedule": ["fun"], "difference": [2.0], "low": [1.0], "high": [3.0]}
    )
    points = pd.DataFrame({"schedule": "fun", "x": [1.0, 2, 3, np.nan], "y": [1.0, 3, 2, 5]})
    unfreezing = pd.DataFrame({"schedule": "fun", "step": [0, 50]})
    return {
        "trace": figures.trace_over_steps(curves, unfreezing),
        "validation": figures.trace_with_validation(curves, curves),
        "map": figures.block_heat_map(fisher, BLOCKS),
        "order": figures.unfreezing_order(order, BLOCKS),
        "top-down": figures.order_against_top_down(order, BLOCKS),
        "bars": figures.relative_performance(differences, baseline="standard"),
        "grid": figures.language_grid(scores, baseline="standard"),
        "scatter": figures.correlation_scatter(points, feature="peak", outcome="average", summary="r = $1"),
    }


def test_no_figure_touches_pyplot_or_anybodys_settings(curves, order):
    before = dict(matplotlib.rcParams)
    made = all_figures(curves, order)
    for figure in made.values():
        figures.to_svg(figure)
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


def test_every_figure_fits_the_page_of_a_paper(curves, order):
    for name, figure in all_figures(curves, order).items():
        assert figure.get_size_inches()[0] <= figures.PAGE + 1e-9, name


def test_no_text_of_a_figure_lies_on_another_or_outside(curves, order, monkeypatch):
    for name, figure in all_figures(curves, order).items():
        boxes = drawn_text(figure, monkeypatch)
        assert len(boxes) > 5
        for text, box in boxes:
            assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, (name, text.get_text())
            assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, (name, text.get_text())
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            if one.get_rotation() % 90 or other.get_rotation() % 90:
                continue  # boxes of slanted text are larger than the text
            overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(overlap) < 1, (name, one.get_text(), other.get_text())


def drawn_text(figure, monkeypatch) -> list:
    """The texts that were really drawn, with their boxes in pixels."""
    drawn = {}
    draw = matplotlib.text.Text.draw

    def recorded(text, renderer):
        if text.get_visible() and text.get_text().strip():
            drawn[text] = text.get_window_extent(renderer)
        draw(text, renderer)

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout is found
    with monkeypatch.context() as patch:
        patch.setattr(matplotlib.text.Text, "draw", recorded)
        canvas.draw()
    return list(drawn.items())


def test_series_are_told_apart_without_colour():
    names = ["standard", "gu", "gu-reverse", "lpft", "random", "fixed", "fun", "mine", "other"]
    styles = figures.series_styles(names)
    assert len({(s.marker, s.line) for s in styles.values()}) == len(names)
    assert len({s.marker for s in styles.values()}) == len(names)


def test_a_schedule_looks_the_same_whatever_stands_beside_it():
    assert figures.series_styles(["fun"])["fun"] == figures.series_styles(["gu", "zzz", "fun"])["fun"]


@pytest.mark.parametrize("paper", ["#ffffff", "#16181b"])
def test_every_line_can_be_seen_on_light_and_on_dark_paper(paper):
    for name, style in figures.series_styles(
        ["standard", "gu", "gu-reverse", "lpft", "random", "fixed", "fun"]
    ).items():
        assert contrast(style.color, paper) >= 2, name


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_curve_drawn_is_the_geometric_mean_over_seeds(curves):
    axes = figures.trace_over_steps(curves).axes[0]
    assert axes.get_yscale() == "log"
    line = next(line for line in axes.get_lines() if line.get_label() == "fun (3)")
    values = curves[curves["schedule"] == "fun"].pivot(index="step", columns="run", values="value").to_numpy()
    assert line.get_ydata() == pytest.approx(np.exp(np.log(values).mean(axis=1)), rel=1e-9)


def test_traces_that_are_zero_are_drawn_on_a_linear_axis(curves):
    curves["value"] = 0.0
    figure = figures.trace_over_steps(curves)
    assert figure.axes[0].get_yscale() == "linear"
    figures.to_svg(figure)


def test_ticks_below_the_curves_stand_at_the_steps_of_unfreezing(curves):
    unfreezing = pd.DataFrame({"schedule": ["fun"] * 4, "step": [0, 50, 50, 100]})
    figure = figures.trace_over_steps(curves, unfreezing)
    assert figure.axes[1].get_lines()[0].get_xdata().tolist() == [0, 50, 100]


def test_the_map_holds_the_mean_of_each_block_at_each_step():
    rows = [
        {"schedule": "fun", "step": step, "block": block, "trace": value}
        for step in (0, 10, 20)
        for i, block in enumerate(BLOCKS)
        for value in (1.0 * 10**i, 100.0 * 10**i)
    ]
    figure = figures.block_heat_map(pd.DataFrame(rows), BLOCKS)
    shown = figure.axes[0].get_images()[0].get_array()
    assert shown.shape == (4, 3)
    assert shown[:, 1].filled() == pytest.approx([10.0, 100.0, 1e3, 1e4])


def test_a_block_that_was_never_measured_is_not_drawn_as_zero():
    rows = [{"schedule": "fun", "step": s, "block": "layer.0", "trace": 5.0} for s in (0, 10)]
    figure = figures.block_heat_map(pd.DataFrame(rows), BLOCKS)
    assert np.isnan(figure.axes[0].get_images()[0].get_array().filled(np.nan)[1:]).all()


def test_the_order_grid_and_the_diagonal_show_the_places(order):
    grid = figures.unfreezing_order(order, BLOCKS).axes[0]
    assert [text.get_text() for text in grid.texts] == ["4", "3", "2", "1", "4", "2", "3", "1"]
    against = figures.order_against_top_down(order, BLOCKS)
    points = against.axes[0].containers[0].lines[0]
    assert points.get_xdata().tolist() == points.get_ydata().tolist() == [4, 3, 2, 1]  # gu is the diagonal


def test_bars_end_at_the_difference_and_whiskers_at_the_interval():
    differences = pd.DataFrame(
        {"outcome": ["average"] * 2, "schedule": ["gu", "fun"], "difference": [1.0, -2.0], "low": [0.5, np.nan],
         "high": [1.5, np.nan]}
    )  # fmt: skip
    axes = figures.relative_performance(differences, baseline="standard").axes[0]
    assert sorted(bar.get_height() for bar in axes.patches) == [-2.0, 1.0]
    whisker = axes.collections[0].get_segments()[0]
    assert whisker[:, 1].tolist() == [0.5, 1.5]


def test_the_language_grid_is_sorted_by_the_baseline_and_shaded_by_the_difference(curves, order):
    axes = all_figures(curves, order)["grid"].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["de", "sw"]
    assert axes.get_images()[0].get_array().tolist() == [[0.0, 1.0], [0.0, 3.0]]


def test_a_point_without_both_values_is_not_drawn(curves, order):
    axes = all_figures(curves, order)["scatter"].axes[0]
    assert len(axes.collections[0].get_offsets()) == 3
    assert axes.get_title(loc="left") == "r = $1"


def test_names_are_shown_as_text_and_long_ones_lose_their_middle():
    assert shortened("a$b$") == r"a\$b\$"
    assert shortened("x\ny") == "x y"
    assert len(shortened("n" * 100)) == 22
    assert block_labels(["encoder.layer.0", "encoder.layer.11"]) == ("encoder.layer.", ["0", "11"])
    assert block_labels(["embeddings", "layer.0"]) == ("", ["embeddings", "layer.0"])
    assert block_labels(["only.one"]) == ("", ["only.one"])


def test_an_inline_figure_takes_the_pages_colours_and_its_own_identifiers(curves, order):
    for name, figure in all_figures(curves, order).items():
        svg = inline_svg(figure, "f1", 'a <b> & "c"')
        assert svg.startswith("<svg")
        assert INK not in svg and GRID not in svg and "var(--ink)" in svg, name
        assert 'aria-label="a &lt;b&gt; &amp; &quot;c&quot;"' in svg
        assert svg.count(' id="') == svg.count(' id="f1-')
        assert "<metadata" not in svg and "<!DOCTYPE" not in svg


def test_figures_can_be_made_in_threads(curves):
    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: figures.to_svg(figures.trace_over_steps(curves)), range(8)))
    assert len(set(made)) == 1
    assert dict(matplotlib.rcParams) == before


def test_a_panel_with_fewer_probes_than_another_has_no_gaps_between_them():
    """`fun` is probed at its events too: the others have nothing at those steps, which is no missing measurement."""
    clock, events = list(range(0, 100, 10)), [15, 45, 75]
    rows = [
        {"schedule": schedule, "step": step, "block": block, "trace": 1.0 + step}
        for schedule, steps in (("standard", clock), ("fun", sorted({*clock, *events})))
        for step in steps
        for block in BLOCKS
    ]
    long_gap = [row for row in rows if row["schedule"] == "fun" or not 30 < row["step"] < 80]
    for frame, gaps in ((rows, False), (long_gap, True)):
        figure = figures.block_heat_map(pd.DataFrame(frame), BLOCKS)
        panels = [np.asarray(axes.get_images()[0].get_array().filled(np.nan)) for axes in figure.axes[:2]]
        assert np.isnan(panels[0]).any() == gaps and not np.isnan(panels[1]).any()


def test_a_readers_own_settings_go_before_ours(curves):
    with matplotlib.rc_context({"font.size": 11, "axes.labelsize": 15, "lines.linewidth": 3.5}):
        figure = figures.trace_over_steps(curves)
        assert figures.trace_over_steps(curves).axes[0].yaxis.label.get_fontsize() == 15
    assert figure.axes[0].get_xticklabels()[0].get_fontsize() == 10.5
    assert {line.get_linewidth() for line in figure.axes[0].lines} == {3.5}


def test_the_style_of_papers_is_serif_and_ends_where_it_is_left(curves):
    with figures.style("paper"):
        letters = figures.trace_over_steps(curves).axes[0].yaxis.label.get_fontname()
    assert letters == "STIXGeneral"
    assert figures.trace_over_steps(curves).axes[0].yaxis.label.get_fontname() == "DejaVu Sans"
    with pytest.raises(InputError, match="no style of figures 'poster'"), figures.style("poster"):
        pass


@pytest.mark.parametrize("name", ["trace", "forest", "bars", "grid", "scatter", "order", "end", "map"])
def test_a_figure_is_drawn_into_the_callers_axes(curves, order, name):
    mine = Figure(figsize=(6, 3))
    left, right = mine.subplots(1, 2)
    rows = pd.DataFrame({"label": ["a"], "series": ["s"], "estimate": [0.5], "low": [0.1], "high": [0.8]})
    fisher = pd.DataFrame([("fun", "r", s, b, 1.0 + s) for s in (0, 10) for b in BLOCKS],
                          columns=["schedule", "run", "step", "block", "trace"])  # fmt: skip
    scores = pd.DataFrame(
        [("fun", "de", 60.0), ("gu", "de", 50.0)], columns=["schedule", "language", "value"]
    )
    differences = pd.DataFrame(
        {"outcome": "o", "schedule": ["fun"], "difference": 1.0, "low": 0.0, "high": 2.0}
    )
    points = pd.DataFrame({"schedule": "fun", "x": [1.0, 2, 3], "y": [1.0, 3, 2]})
    drawn = {
        "trace": lambda ax: figures.trace_over_steps(curves, ax=ax),
        "forest": lambda ax: figures.forest(rows, ax=ax),
        "bars": lambda ax: figures.relative_performance(differences, baseline="gu", ax=ax),
        "grid": lambda ax: figures.language_grid(scores, ax=ax),
        "scatter": lambda ax: figures.correlation_scatter(points, feature="f", outcome="o", ax=ax),
        "order": lambda ax: figures.unfreezing_order(order, BLOCKS, ax=ax),
        "end": lambda ax: figures.blocks_at_the_end(fisher, BLOCKS, ax=ax),
        "map": lambda ax: figures.block_heat_map(fisher, BLOCKS, ax=ax),
    }[name](left)
    assert drawn is mine and mine.get_size_inches().tolist() == [6, 3]
    assert left.has_data() and not right.has_data()
    figures.to_svg(mine)


def test_several_schedules_do_not_fit_one_map():
    fisher = pd.DataFrame({"schedule": ["a", "b"], "step": 0, "block": BLOCKS[0], "trace": 1.0})
    with pytest.raises(InputError, match="ax is one panel, and these are 2 schedules"):
        figures.block_heat_map(fisher, BLOCKS, ax=Figure().subplots())


def test_lines_within_schedules_have_the_slope_that_all_schedules_share():
    points = pd.DataFrame(
        {"schedule": ["a"] * 3 + ["b"] * 3, "x": [0.0, 1, 2, 10, 11, 12], "y": [5.0, 7, 9, 0, 2, 4]}
    )
    axes = figures.correlation_scatter(points, feature="f", outcome="o", within=True).axes[0]
    slopes = [
        np.diff(line.get_ydata())[0] / np.diff(line.get_xdata())[0]
        for line in axes.lines
        if len(line.get_xdata()) == 2
    ]
    assert slopes == pytest.approx([2.0, 2.0])  # over all runs together it is negative


def test_a_peak_that_was_not_reached_has_no_line_but_a_triangle(curves):
    rising = curves.assign(value=curves["step"] + 1.0)
    top = figures.trace_with_validation(rising, curves).axes[0]
    assert not any(len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2 for line in top.lines)
    assert sum(line.get_marker() == (3, 0, -90) for line in top.lines) == 2
    falling = figures.trace_with_validation(curves, curves).axes[0]
    assert not any(line.get_marker() == (3, 0, -90) for line in falling.lines)


def test_the_ends_of_training_are_geometric_means_by_block():
    traces = pd.DataFrame([("fun", f"r{r}", b, (1.0, 100.0)[r]) for r in (0, 1) for b in BLOCKS],
                          columns=["schedule", "run", "block", "trace"])  # fmt: skip
    (line,) = figures.blocks_at_the_end(traces, BLOCKS).axes[0].lines
    assert line.get_ydata() == pytest.approx([10.0] * 4)


@pytest.mark.parametrize("fonts", ["all", "none"])
def test_no_letter_is_an_empty_box(curves, monkeypatch, fonts):
    """With a font it is drawn; without, a file names the letter and a page leaves it to the browser's fonts."""
    if fonts == "none":
        monkeypatch.setattr(font_list, "_installed", lambda: ())
        font_list._drawable.cache_clear()
    named = curves.assign(schedule=curves["schedule"].replace("fun", "中文"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Gg]lyph")
        figures.to_file(figures.trace_over_steps(named), "png")
        token = font_list.SHOWN_ELSEWHERE.set(True)
        svg = inline_svg(figures.trace_over_steps(named), "x", "d")
        font_list.SHOWN_ELSEWHERE.reset(token)
    if fonts == "none":
        labels = [text.get_text() for text in figures.trace_over_steps(named).legends[0].get_texts()]
        assert any("U+4E2D" in label for label in labels)
        assert "中文" in svg.split("<svg", 1)[1] and "<text" in svg
    font_list._drawable.cache_clear()


def test_schedules_of_one_name_stand_in_the_order_of_their_intervals():
    names = ["gu (every 20)", "fun", "gu (every 5)", "standard", "own"]
    assert figures.schedule_order(names) == ["standard", "gu (every 5)", "gu (every 20)", "fun", "own"]


def test_a_run_that_learnt_nothing_does_not_take_the_axis_from_the_lines():
    steps = np.arange(0, 100, 10)
    rows = [
        {
            "schedule": "standard",
            "run": f"r{k}",
            "step": step,
            "value": 1e-9 if k == 0 and step == 50 else 2.0,
        }
        for k in range(8)
        for step in steps
    ]
    figure = figures.trace_over_steps(pd.DataFrame(rows))
    low, high = figure.axes[0].get_ylim()
    line = np.exp(np.log(2.0) * 7 / 8 + np.log(1e-9) / 8)  # the geometric mean where one run is at 1e-9
    assert low == pytest.approx(line / 10) and high > 2
