"""`fishlens report`: a file written whole, or one sentence and nothing touched."""

import csv
import io
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError


def report(*words):
    return CliRunner().invoke(app, ["report", *map(str, words)], catch_exceptions=False)


@pytest.fixture(scope="module")
def drawn(runs, tmp_path_factory):
    """A folder with the whole page, under the name that it has without one."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report(runs)
    return folder


def test_the_page_is_written_and_said_where(runs, tmp_path):
    page = tmp_path / "new" / "page.html"
    done = report(runs, "-o", page, "--only", "transfer")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert str(page) in done.stderr
    assert [p.name for p in page.parent.iterdir()] == ["page.html"]  # no draft is left


def test_without_a_name_it_is_report_html(drawn):
    assert [path.name for path in drawn.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("ending", "begins"), [("md", "# "), ("tex", "% fishlens"), ("html", "<!DOCTYPE html>")]
)
def test_the_ending_chooses_the_format(runs, tmp_path, ending, begins):
    report(runs, "-o", tmp_path / f"out.{ending}", "--only", "transfer")
    assert (tmp_path / f"out.{ending}").read_text(encoding="utf-8").startswith(begins)


def test_csv_goes_to_a_folder_one_file_a_table(runs, tmp_path):
    report(runs, "--format", "csv", "-o", tmp_path / "tables")
    assert {"runs.csv", "table-1.csv", "run-scores.csv"} <= {p.name for p in (tmp_path / "tables").iterdir()}


@pytest.mark.parametrize(("kind", "begins"), [("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_every_figure_can_have_a_file_of_its_own(runs, drawn, tmp_path, kind, begins):
    folder = tmp_path / "figures"
    report(runs, "-o", tmp_path / "report.md", "--figures", folder, "--figure-format", kind)
    page = (drawn / "report.html").read_text(encoding="utf-8")
    assert len(list(folder.iterdir())) == page.count("<figure") > 2
    assert all(
        path.suffix == f".{kind}" and path.read_bytes().startswith(begins) for path in folder.iterdir()
    )


def test_one_table_can_be_piped(runs):
    rows = list(csv.DictReader(io.StringIO(report(runs, "--format", "csv", "--table", "run-scores").stdout)))
    assert [row["run"] for row in rows] == ["gu-0", "gu-1", "gu-2", "standard-0", "standard-1", "standard-2"]
    assert all(40 < float(row["score de"]) < 100 for row in rows)


def test_markdown_goes_to_standard_output(runs):
    assert "**Transfer by schedule**" in report(runs, "--format", "md").stdout


def test_several_folders_and_patterns_are_one_study(runs):
    assert "2 runs" in report(runs / "gu-0", runs / "standard-[1]", "--format", "md").stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere is not a directory"),
        (
            ["{runs}", "--format", "csv", "--table", "nothing"],
            r"no table 'nothing'; expected one of .*table-1, ",
        ),
        (
            ["{runs}", "--table", "runs"],
            r"--table picks one table of --format csv or latex, and the format is html",
        ),
        (["{runs}", "--margin", "0"], r"--margin is 0; expected a number of points above 0"),
        (["{runs}", "-o", "{runs}/gu-0/journal-1.jsonl/x.html"], r"cannot write .*x.html"),
    ],
)
def test_bad_input_is_one_sentence(runs, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        report(*(word.format(runs=runs) for word in words))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_no_study(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        report(tmp_path, "-o", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_is_there_stays_whole_when_the_disk_is_full(runs, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("the old one")
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    command = [
        sys.executable,
        "-c",
        f"{full}; from fishlens.cli import main; main()",
        "report",
        runs,
        "-o",
        page,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"fishlens: cannot write {page}: File too large\n"
    assert page.read_text() == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_an_unknown_baseline_is_refused_with_what_there_is(runs):
    with pytest.raises(
        InputError, match="no run has the schedule 'nope' to compare with: there are gu, standard"
    ):
        report(runs, "--baseline", "nope", "--format", "md")


def test_equivalence_is_tested_when_a_margin_is_given(runs):
    assert "p of equivalence (±2)" in report(runs, "--margin", "2", "--format", "md").stdout
