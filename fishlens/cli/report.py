"""`fishlens report`: runs in, one page (or tables) out."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fishlens import own_code
from fishlens.cli.output import say
from fishlens.errors import InputError
from fishlens.files import write_file, write_files
from fishlens.names import colliding

if TYPE_CHECKING:
    from fishlens.analysis.report import Picture, Report


class Format(str, Enum):
    html = "html"
    md = "md"
    csv = "csv"
    latex = "latex"


ENDINGS = {
    "": Format.html, ".html": Format.html, ".htm": Format.html, ".md": Format.md, ".tex": Format.latex,
    ".csv": Format.csv,
}  # fmt: skip


class Spread(str, Enum):
    sd = "sd"
    se = "se"
    interval = "interval"
    none = "none"


class Style(str, Enum):
    page = "page"
    paper = "paper"


class FigureFormat(str, Enum):
    pdf = "pdf"
    svg = "svg"
    png = "png"


def report(
    runs: Annotated[list[str], typer.Argument(help="Run directories, folders of them, or patterns.")],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="File to write; for csv a folder; - for standard output."),
    ] = None,
    kind: Annotated[
        Format | None, typer.Option("--format", help="Default: by the output's ending, else html.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the report.")] = "",
    group: Annotated[
        bool,
        typer.Option(
            "--group", help="Runs of different tasks, settings or estimators: one part for each, not refused."
        ),
    ] = False,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--where", help="Only runs whose field is so: train.learning_rate=0.002, schedule!=gu."),
    ] = None,
    across: Annotated[
        list[str] | None,
        typer.Option(
            help="A field in which runs may differ and be put together: every, train.learning_rate."
        ),
    ] = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Include runs that did not end.")] = False,
    metric: Annotated[
        str | None, typer.Option(help="Of the scores; by default the task's headline metric.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this section: prediction, transfer, fisher, unfreezing, published or measured."
        ),
    ] = None,
    baseline: Annotated[str, typer.Option(help="Schedule that the others are compared with.")] = "standard",
    smooth: Annotated[
        float, typer.Option(min=0, help="Moving average over so many steps before features are read.")
    ] = 0,
    margin: Annotated[
        float | None, typer.Option(help="Points within which two schedules count as equivalent (TOST).")
    ] = None,
    guess: Annotated[
        float | None,
        typer.Option(
            help="Points that guessing scores, to count runs that collapsed; known for nli, choice, topic."
        ),
    ] = None,
    outcome: Annotated[
        str,
        typer.Option(
            help="What the curve is asked about, and schedules are compared by: average, lowest, source, or "
            "module:function of your own."
        ),
    ] = "average",
    feature: Annotated[
        list[str] | None,
        typer.Option(help="A feature of the curve of your own: module:function. May be repeated."),
    ] = None,
    covariates: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file of numbers of languages (column language) to judge the features beside."
        ),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Also write every figure into this folder, as a file of its own.")
    ] = None,
    figure_format: Annotated[FigureFormat, typer.Option(help="Of --figures.")] = FigureFormat.pdf,
    figure: Annotated[
        str | None, typer.Option(help="Only the figure of this name, to -o as .pdf, .svg or .png.")
    ] = None,
    width: Annotated[float | None, typer.Option(help="Of --figure and --figures, in inches.")] = None,
    style: Annotated[
        Style, typer.Option(help="Of figures; paper: serif letters of 8 points, 3.3 inches unless --width.")
    ] = Style.page,
    table: Annotated[str | None, typer.Option(help="csv, latex: only the table of this name.")] = None,
    spread: Annotated[
        Spread, typer.Option(help="What stands beside a mean over runs; interval: 95%, Student's t.")
    ] = Spread.sd,
) -> None:
    """Statistics and figures of runs: one self-contained HTML page, or its tables as Markdown, CSV or LaTeX."""
    from fishlens.analysis.covariates import read_covariates
    from fishlens.analysis.listing import chosen, listed
    from fishlens.analysis.own import own_features
    from fishlens.analysis.report import build_report, to_html, to_latex, to_markdown, with_spread
    from fishlens.analysis.selection import only as only_runs
    from fishlens.journal import load_runs

    wanted = _format(kind, output) if figure is None else Format.html
    if table and wanted not in (Format.csv, Format.latex):
        raise InputError(
            f"--table picks one table of --format csv or latex, and the format is {wanted.value}"
        )
    if width is not None and not 0.5 <= width <= 40:
        raise InputError(f"--width is {width:g}; expected inches between 0.5 and 40")
    ending = _figure_ending(output) if figure is not None else ""
    if margin is not None and not margin > 0:
        raise InputError(f"--margin is {margin:g}; expected a number of points above 0")
    asked = _own(outcome, "--outcome") if ":" in outcome else outcome
    mine = [_own(name, "--feature") for name in feature or ()]
    loaded = load_runs(runs)
    if conditions:
        loaded = only_runs(loaded, chosen(listed(loaded), conditions)["run"])
    with own_features(mine):
        built = build_report(
            loaded,
            title=title,
            group=group,
            unfinished=unfinished,
            baseline=baseline,
            window=smooth,
            margin=margin,
            across=across or [],
            metric=metric,
            only=only or [],
            guess=guess,
            covariates=None if covariates is None else read_covariates(covariates),
            outcome=asked,
        )
    built = with_spread(built, spread.value)
    for run, reason in built.left_out.items():
        say(f"left out: {run} ({reason})", err=True)
    if figures is not None:
        drawn = {
            figures / f"{built.file_name(shared, picture)}.{figure_format.value}": _drawn(
                picture, figure_format.value, width, style
            )
            for shared, picture in built.pictures
        }
        _write_all(drawn)
    if figure is not None:
        _write(_drawn(_picture(built, figure), ending, width, style), str(output))
        return
    if wanted is Format.csv:
        _write_csv(built, output, table)
        return
    if wanted is Format.latex:
        _write(to_latex(built, table), output or "-")
        return
    text = {Format.html: to_html, Format.md: to_markdown}[wanted](built)
    _write(text, output or ("report.html" if wanted is Format.html else "-"))


def write_page(run: Path) -> Path:
    """Writes the HTML report of one run into its directory, as `report.html`, and returns where it is."""
    from fishlens.analysis.report import build_report, to_html
    from fishlens.journal import load_runs

    page = run / "report.html"
    _write(to_html(build_report(load_runs([str(run)]))), str(page))
    return page


def _own(name: str, option: str) -> Any:
    """What `module:function` on the command line names: whoever typed it has asked for that code."""
    if not own_code.is_own(name):
        raise InputError(f"{option} is {name!r}; expected module:function, as mine:median")
    own_code.trust({name.partition(":")[0]})
    return own_code.load_class(name, option)


def _drawn(picture: "Picture", ending: str, width: float | None, style: Style) -> bytes:
    from fishlens.analysis import figures

    inches = width or (figures.COLUMN if style is Style.paper else None)
    with figures.style(style.value):
        return figures.to_file(picture.draw(**({} if inches is None else {"width": inches})), ending)


def _picture(built: "Report", name: str) -> "Picture":
    """The figure of this name; of several groups' one with the group's name before it."""
    from fishlens.analysis.report.sections import DRAWN

    found = {built.file_name(shared, picture): picture for shared, picture in built.pictures}
    alike = [picture for picture in found.values() if picture.name == name]
    if name in found or len(alike) == 1:
        return found.get(name) or alike[0]
    there = f"expected one of {', '.join(found)}" if found else "these runs have no figure at all"
    for section, drawn in DRAWN.items():
        if name in drawn and not alike:
            why = (
                "; ".join(dict.fromkeys(built.missing(section)))
                or f"nothing in its section, {section}, is drawn"
            )
            raise InputError(f"these runs do not give the figure {name!r}: {why.rstrip('.:')}; {there}")
    raise InputError(f"the report has no figure {name!r}; {there}")


def _figure_ending(output: str | None) -> str:
    ending = Path(output or "").suffix.lower().removeprefix(".")
    if ending not in [kind.value for kind in FigureFormat]:
        raise InputError(f"--figure is written to -o with .pdf, .svg or .png: {output or 'no -o was given'}")
    return ending


def _format(kind: Format | None, output: str | None) -> Format:
    if kind is not None:
        return kind
    ending = Path(output).suffix.lower() if output else ""
    if ending not in ENDINGS:
        raise InputError(
            f"a report is not written as {ending}; expected .html, .md, .tex or .csv, or --format"
        )
    return ENDINGS[ending]


def _write_csv(built: "Report", output: str | None, table: str | None) -> None:
    from fishlens.analysis.report import named_tables, table_to_csv, to_csv

    files = to_csv(built)
    if table is not None:
        found = named_tables(built, table)
        if len(found) == 1:
            _write(table_to_csv(found[0][1]), output or "-")
            return
        files = {f"{built.file_name(group, one)}.csv": table_to_csv(one) for group, one in found}
    if output in (None, "-"):
        for name, text in files.items():
            say(f"# {name}\n{text}")
    else:
        _write_all({Path(output) / name: text for name, text in files.items()})


def _write_all(contents: Mapping[Path, str | bytes]) -> None:
    """Files of one folder, all of them or none."""
    if pair := colliding(path.name for path in contents):
        raise InputError(
            f"{pair[0]} and {pair[1]} are one file on some systems: choose one with --table or --figure"
        )
    try:
        for folder in {path.parent for path in contents}:
            folder.mkdir(parents=True, exist_ok=True)
        write_files(contents)
    except OSError as error:
        where = error.filename or next(iter(contents)).parent
        raise InputError(f"cannot write {where}: {error.strerror}") from None
    for path in contents:
        say(f"wrote {path}", err=True)


def _write(content: str | bytes, output: str) -> None:
    """Write a file whole or not at all, or `-` to standard output."""
    if output == "-":
        say(content, end="")
        return
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    path = Path(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data, follow=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    say(f"wrote {path} ({len(data) / 1e6:.1f} MB)", err=True)
