"""The same tables as Markdown, CSV and LaTeX: every number is there, and names cannot break out."""

import csv
import io
import math
import shutil
import subprocess

import pytest
from fishlens.analysis.report import Column, Group, Report, Section, Table, to_csv, to_latex, to_markdown

NASTY = "a|b_$x$ `c` <i> & 50% #1 ~ ^ \\ {d}\nnewline"


def a_report(*groups: str) -> Report:
    table = Table(
        "scores",
        "Scores | of _all_",
        [Column("name", "name"), Column("mean", "mean", 2, plus_minus="sd"), Column("p", "p", p_value=True)],
        [{"name": NASTY, "mean": 1 / 3, "sd": 0.123456789, "p": 0.0001}, {"name": "=1+1", "mean": math.nan}],
        {NASTY: ("run-1", NASTY), "=1+1": ("run-2",)},
        "A note.",
    )
    return Report(
        "T", "made", [Group(g, g, [Section("s", "S", "Text", [table])]) for g in groups or ("study",)], {}
    )


def test_csv_has_every_number_in_full_and_the_runs_behind_each_row():
    files = to_csv(a_report())
    assert list(files) == ["scores.csv"]
    rows = list(csv.reader(io.StringIO(files["scores.csv"])))
    assert rows[0] == ["name", "mean", "sd", "p", "run_names"]
    assert rows[1] == [NASTY, repr(1 / 3), "0.123456789", "0.0001", f"run-1 {NASTY}"]
    assert rows[2] == [
        "'=1+1",
        "",
        "",
        "",
        "run-2",
    ]  # no spreadsheet computes a name, and nothing known is empty


def test_csv_of_several_groups_goes_to_files_of_their_own():
    assert list(to_csv(a_report("one", "two"))) == ["one-scores.csv", "two-scores.csv"]


def test_markdown_rows_have_as_many_cells_as_there_are_columns():
    lines = to_markdown(a_report()).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| name"))
    assert lines[start] == "| name | mean | p |"
    assert lines[start + 1] == "| :--- | ---: | ---: |"
    cells = lines[start + 2].replace("\\|", "").split("|")
    assert len(cells) == 5
    assert cells[2:4] == [" 0.33 ± 0.12 ", " &lt; 0.001 "]
    assert "&lt;i> &amp; 50%" in lines[start + 2]
    assert "- =1+1: `run-2`" in lines


def test_latex_prints_names_as_they_are():
    text = to_latex(a_report())
    name = r"a|b\_\$x\$ `c` $<$i$>$ \& 50\% \#1 \textasciitilde{} \textasciicircum{} \textbackslash{} \{d\} newline"
    assert name in text
    assert r"0.33 $\pm$ 0.12 & $<$ 0.001 \\" in text
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 1
    assert all(
        line.startswith("%") for line in text.splitlines() if "run-1" in line
    )  # a comment stays one line


def test_latex_of_a_whole_report_compiles(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    page = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs}\begin{document}"
    (tmp_path / "t.tex").write_text(page + to_latex(a_report()) + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
