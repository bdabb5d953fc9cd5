"""`fishlens report`: runs in, one page (or tables) out."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fishlens.cli.output import say
from fishlens.errors import InputError
from fishlens.files import write_file


class Format(str, Enum):
    html = "html"
    md = "md"
    csv = "csv"
    latex = "latex"


ENDINGS = {
    "": Format.html, ".html": Format.html, ".htm": Format.html, ".md": Format.md, ".tex": Format.latex,
    ".csv": Format.csv,
}  # fmt: skip


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
    figures: Annotated[
        Path | None, typer.Option(help="Also write every figure into this folder, as a file of its own.")
    ] = None,
    figure_format: Annotated[FigureFormat, typer.Option(help="Of --figures.")] = FigureFormat.pdf,
    table: Annotated[str | None, typer.Option(help="csv: only the table of this name.")] = None,
) -> None:
    """Statistics and figures of runs: one self-contained HTML page, or its tables as Markdown, CSV or LaTeX."""
    from fishlens.analysis.figures import to_file
    from fishlens.analysis.listing import chosen, listed
    from fishlens.analysis.report import build_report, to_csv, to_html, to_latex, to_markdown
    from fishlens.analysis.selection import only as only_runs
    from fishlens.journal import load_runs

    wanted = _format(kind, output)
    if table and wanted is not Format.csv:
        raise InputError(f"--table picks one table of --format csv, and the format is {wanted.value}")
    if margin is not None and not margin > 0:
        raise InputError(f"--margin is {margin:g}: expected a number of points above 0")
    loaded = load_runs(runs)
    if conditions:
        loaded = only_runs(loaded, chosen(listed(loaded), conditions)["run"])
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
    )
    for run, reason in built.left_out.items():
        say(f"left out: {run} ({reason})", err=True)
    if figures is not None:
        for shared, picture in built.pictures:
            file = figures / f"{built.file_name(shared, picture)}.{figure_format.value}"
            _write(to_file(picture.figure, figure_format.value), str(file))
    if wanted is Format.csv:
        _write_csv(to_csv(built), output, table)
        return
    text = {Format.html: to_html, Format.md: to_markdown, Format.latex: to_latex}[wanted](built)
    _write(text, output or ("report.html" if wanted is Format.html else "-"))


def write_page(run: Path) -> Path:
    """Writes the HTML report of one run into its directory, as `report.html`, and returns where it is."""
    from fishlens.analysis.report import build_report, to_html
    from fishlens.journal import load_runs

    page = run / "report.html"
    _write(to_html(build_report(load_runs([str(run)]))), str(page))
    return page


def _format(kind: Format | None, output: str | None) -> Format:
    if kind is not None:
        return kind
    ending = Path(output).suffix.lower() if output else ""
    if ending not in ENDINGS:
        raise InputError(
            f"a report is not written as {ending}: expected .html, .md, .tex or .csv, or --format"
        )
    return ENDINGS[ending]


def _write_csv(files: dict[str, str], output: str | None, table: str | None) -> None:
    if table is not None:
        if f"{table}.csv" not in files:
            names = ", ".join(name.removesuffix(".csv") for name in files)
            raise InputError(f"the report has no table {table!r}: expected one of {names}")
        _write(files[f"{table}.csv"], output or "-")
    elif output in (None, "-"):
        for name, text in files.items():
            say(f"# {name}\n{text}")
    else:
        for name, text in files.items():
            _write(text, str(Path(output) / name))


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
