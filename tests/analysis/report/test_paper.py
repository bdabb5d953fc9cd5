"""What goes into a paper: one figure a file, one table at a time, and what to cite."""

import re
import shutil
import subprocess

import pytest
import yaml
from fishlens.analysis.report import Column, Group, Report, Section, Table, to_latex, with_spread
from scipy import stats
from typer.testing import CliRunner

from fishlens import __version__
from fishlens.cli import app
from fishlens.errors import InputError


def fishlens(*words):
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def a_report(*rows, best="column"):
    columns = [Column("name", "schedule")]
    columns += [Column(k, k, 2, plus_minus=f"{k}_sd", count="runs", ranked=True) for k in ("de", "sw")]
    note = "Mean ± standard deviation over runs, in points."
    table = Table("scores", "Scores", columns, rows, {}, note, best=best)
    other = Table("other", "Other", columns[:1], rows, {})
    return Report("T", "made", [Group("g", "g", [Section("s", "S", "", [table, other])])], {})


ROWS = (
    {"name": "a", "de": 60.04, "de_sd": 2.0, "sw": 40.0, "sw_sd": 2.0, "runs": 4},
    {"name": "b", "de": 60.02, "de_sd": 2.0, "sw": 45.0, "sw_sd": 2.0, "runs": 4},
    {"name": "c", "de": 58.00, "de_sd": 2.0, "sw": 43.0, "sw_sd": 2.0, "runs": 4},
)


def test_the_best_is_bold_and_the_second_underlined_by_what_is_printed():
    text = to_latex(a_report(*ROWS))
    assert r"a & \textbf{60.0} $\pm$ 2.0 & 40.0 $\pm$ 2.0" in text
    assert r"b & \textbf{60.0} $\pm$ 2.0 & \textbf{45.0} $\pm$ 2.0" in text  # printed alike, marked alike
    assert r"c & \underline{58.0} $\pm$ 2.0 & \underline{43.0} $\pm$ 2.0" in text
    assert "Bold: the highest of its column; underlined: the second." in text


def test_in_a_table_of_rows_the_best_is_that_of_its_row():
    text = to_latex(a_report(*ROWS, best="row"))
    assert text.count(r"\textbf{60.0}") == 2 and r"\underline{40.0}" in text and "of its row" in text


def test_where_all_is_alike_nothing_is_marked():
    text = to_latex(a_report(*({**row, "de": 50.0, "sw": 50.0} for row in ROWS)))
    assert "textbf" not in text and "Bold" not in text


@pytest.mark.parametrize(("count", "size"), [(3, None), (8, "footnotesize"), (14, "scriptsize")])
def test_a_table_has_the_largest_letters_with_which_it_fits_the_page(count, size):
    """Fourteen columns of numbers in letters of the text would be wider than a page of 455 points."""
    columns = [Column(f"c{i}", f"column {i}", 2, bounded=True) for i in range(count)]
    table = Table("wide", "Wide", columns, [{column.key: 12345.67 for column in columns}], {})
    text = to_latex(Report("T", "made", [Group("g", "g", [Section("s", "S", "", [table])])], {}))
    assert {name: rf"\{name}\setlength" in text for name in ("footnotesize", "scriptsize")} == {
        name: name == size for name in ("footnotesize", "scriptsize")
    }


def test_one_table_of_the_report():
    assert to_latex(a_report(*ROWS), "other").count(r"\begin{table}") == 1
    with pytest.raises(InputError, match="no table 'weather'; expected one of scores, other"):
        to_latex(a_report(*ROWS), "weather")


@pytest.mark.parametrize(
    ("kind", "cell", "note"),
    [
        ("se", r"\underline{58.0} $\pm$ 1.0", "standard error over runs"),
        ("interval", r"\underline{58.0} [54.8, 61.2]", "95\\% interval over runs"),
        ("none", r"\underline{58.0} &", "Mean over runs"),
    ],
)
def test_what_stands_beside_a_mean_is_chosen_and_said(kind, cell, note):
    text = to_latex(with_spread(a_report(*ROWS), kind))
    assert cell in text and note in text and "standard deviation" not in text


def test_the_interval_is_students():
    (_, table), _ = with_spread(a_report(*ROWS), "interval").tables
    low, high = stats.t.interval(0.95, 3, loc=58.0, scale=2.0 / 2)
    assert (table.rows[2]["de_low"], table.rows[2]["de_high"]) == pytest.approx((low, high))


def test_a_figure_has_the_width_and_the_letters_of_a_paper(runs, tmp_path):
    file = tmp_path / "trace.pdf"
    fishlens("report", runs, "--figure", "trace", "-o", file, "--style", "paper")
    data = file.read_bytes()
    box = [float(number) for number in re.search(rb"/MediaBox \[ ([^]]*)\]", data)[1].split()]
    assert box[2] / 72 == pytest.approx(3.3, abs=0.01)
    assert b"STIXGeneral" in data and b"/Type3" not in data  # letters are embedded whole
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--figure", "weather", "-o", "x.pdf"], "no figure 'weather'; expected one of .*trace"),
        (["--figure", "trace"], "--figure is written to -o with .pdf, .svg or .png: no -o was given"),
        (["--figure", "trace", "-o", "x.html"], "expected|written to -o with .pdf, .svg or .png: x.html"),
        (["--figure", "trace", "-o", "x.pdf", "--width", "0"], "--width is 0; expected inches between"),
    ],
)
def test_a_figure_that_cannot_be_written_is_one_sentence(runs, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        fishlens("report", runs, *words)
    assert list(tmp_path.iterdir()) == []


def test_what_to_cite_is_one_thing_in_both_places(request):
    text = fishlens("cite")
    stated = yaml.safe_load((request.config.rootpath / "CITATION.cff").read_text(encoding="utf-8"))
    paper = stated["preferred-citation"]
    assert stated["version"] == __version__ and f'version = "{__version__}"' in text
    assert paper["title"] in text.replace("{", "").replace("}", "")
    assert all(author["family-names"].replace("ć", "{\\'c}") in text for author in paper["authors"])
    assert f"{paper['start']}--{paper['end']}" in text and paper["url"] in text


def test_two_figures_and_two_tables_in_a_document(runs, tmp_path):
    if shutil.which("latexmk") is None or shutil.which("pdflatex") is None:
        pytest.skip("no latexmk here")
    for name in ("trace", "relative"):
        fishlens("report", runs, "--figure", name, "-o", tmp_path / f"{name}.pdf", "--style", "paper")
    for name in ("table-1", "differences"):
        fishlens("report", runs, "--format", "latex", "--table", name, "-o", tmp_path / f"{name}.tex")
    (tmp_path / "paper.tex").write_text(
        r"\documentclass[twocolumn]{article}\usepackage[utf8]{inputenc}\usepackage{booktabs,graphicx}\begin{document}"
        r"\includegraphics{trace.pdf}\includegraphics{relative.pdf}\input{table-1.tex}\input{differences.tex}"
        r"\cite{liu-etal-2024-fun}\bibliographystyle{plain}\bibliography{own}\end{document}"
    )
    (tmp_path / "own.bib").write_text(fishlens("cite"))
    command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    # the bound is a guard: pdflatex can read for ever where a break is followed by a bracket
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Liu" in (tmp_path / "paper.bbl").read_text()


def test_a_figure_that_these_runs_do_not_give_says_why(runs, tmp_path):
    from fishlens.analysis.report.sections import DRAWN

    few = [str(path) for path in sorted(runs.iterdir())[:1]]
    with pytest.raises(
        InputError, match=r"do not give the figure 'forest': No coefficient .*; expected one of .*trace"
    ):
        fishlens("report", *few, "--figure", "forest", "-o", tmp_path / "forest.pdf")
    with pytest.raises(InputError, match=r"the report has no figure 'tree'; expected one of .*trace"):
        fishlens("report", *few, "--figure", "tree", "-o", tmp_path / "tree.pdf")
    assert not list(tmp_path.iterdir())
    assert len({name for names in DRAWN.values() for name in names}) == 12


def test_every_figure_of_a_report_is_listed_under_its_section(report):
    from fishlens.analysis.report.parts import Picture
    from fishlens.analysis.report.sections import DRAWN

    for section in report.groups[0].sections:
        drawn = {item.name for item in section.items if isinstance(item, Picture)}
        assert drawn <= set(DRAWN.get(section.name, ())), section.name
