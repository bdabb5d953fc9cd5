"""The page stands alone, and names are text whatever is in them."""

from dataclasses import replace
from html.parser import HTMLParser

from fishlens.analysis.report import build_report, to_html

from fishlens.journal import load_runs


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_nothing_is_asked_of_any_other_place(page):
    for tag, attributes in Elements(page).found:
        assert tag not in ("link", "iframe", "object", "embed", "base") or attributes.get("href") == "data:,"
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, name, value)
    assert "@import" not in page and "url(http" not in page


def test_an_identifier_occurs_once_and_every_reference_has_its_target(page):
    elements = Elements(page).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        for name in ("href", "xlink:href"):
            if (attributes.get(name) or "").startswith("#"):
                assert attributes[name][1:] in ids


def test_every_table_and_figure_names_the_runs_behind_it(study, report):
    for group in report.groups:
        for section in group.sections:
            for item in section.items:
                source_runs = {
                    run
                    for runs in getattr(item, "source_runs", {"": study.runs["run"]}).values()
                    for run in runs
                }
                assert source_runs, item
                assert source_runs <= set(study.runs["run"])


def test_names_with_markup_are_text(tmp_path, write):
    name = "<img src=x onerror=alert(1)>$x_1$ & co"
    for seed in range(2):
        write(tmp_path, "gu", seed, model=f"<script>{name}</script>")
    (tmp_path / "gu-0").rename(tmp_path / name)
    page = to_html(build_report(load_runs(tmp_path)))
    assert not [a for tag, a in Elements(page).found if tag == "img" or "onerror" in a]
    assert [tag for tag, _ in Elements(page).found].count("script") == 1  # ours
    assert "<code>&lt;img src=x onerror=alert(1)&gt;$x_1$ &amp; co</code>" in page


def test_a_page_of_many_groups_has_their_answers_and_main_tables_and_says_where_the_rest_is(report):
    one = report.groups[0]
    many = replace(report, groups=[replace(one, name=f"g{k}", title=f"group {k}") for k in range(80)])
    page = to_html(many)
    assert "<svg" not in page and page.count("<h3>Transfer by schedule</h3>") == 80
    assert "Features by run" not in page and page.count(one.answer[0].claim) >= 80
    assert "Of 80 groups the page has the answer and the main tables" in page
    assert "Features by run" in to_html(replace(many, groups=many.groups[:1]))
    assert len(page) < 5e6
