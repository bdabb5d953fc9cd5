"""The page in a real browser: no console message, no request, it fits a phone, its tables sort, its theme toggles.

Chromium is driven by its own command line; what a page does is read off its log, its network log and the DOM that it
leaves. Without a browser these tests are skipped and say so; two of them are controls that must see a bad page.
"""

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("FISHLENS_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing leaves this machine, whatever browser or page want
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium or Chrome found: install one, or name it in FISHLENS_BROWSER"
)


@dataclass(frozen=True)
class Seen:
    dom: str
    console: list[str]
    requests: list[str]

    @property
    def found(self) -> dict:
        """What the page's own probe wrote down."""
        return json.loads(html.unescape(re.search(r'data-found="([^"]*)"', self.dom)[1]))


def look_at(page: str, folder: Path) -> Seen:
    """Open a page, let its scripts run, and say what happened."""
    file, log = folder / "page.html", folder / "net.json"
    file.write_text(page, encoding="utf-8")
    command = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    command += [
        "--enable-logging=stderr",
        "--window-size=1280,900",
        "--virtual-time-budget=3000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, file.as_uri()], capture_output=True, text=True, timeout=1800, check=True, encoding="utf-8"
    )
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(done.stdout, console, requests_of_the_page(json.loads(log.read_text(encoding="utf-8"))))


def requests_of_the_page(log: dict) -> list[str]:
    """Requests that a page began. The browser's own (its clock, its updates) have no origin in the log."""
    started = [event.get("params", {}) for event in log["events"]]
    return sorted(
        {
            params["url"]
            for params in started
            if params.get("initiator", "not an origin") != "not an origin"
            and not params.get("url", "data:").startswith(("data:", "file:"))
        }
    )


def with_probe(page: str, javascript: str) -> str:
    """The page with a script at its end that leaves `found` in the DOM."""
    probe = f"const found = {{}}; {javascript}; document.body.dataset.found = JSON.stringify(found);"
    return page.replace("</body>", f"<script>{probe}</script></body>")


def framed(page: str, width: int, javascript: str) -> str:
    """A page around the page: a frame as wide as a phone, and a probe that looks into it as `inside`."""
    probe = (
        f"addEventListener('load', () => {{ const found = {{}}; const frame = document.querySelector('iframe');"
        f"const inside = frame.contentDocument; const view = frame.contentWindow; {javascript};"
        "document.body.dataset.found = JSON.stringify(found); });"
    )
    return (
        f'<!DOCTYPE html><body><iframe width="{width}" height="800" srcdoc="{html.escape(page)}"></iframe>'
        f"<script>{probe}</script></body>"
    )


def test_it_opens_without_a_console_message_or_a_request(page, tmp_path):
    seen = look_at(page, tmp_path)
    assert "What was measured" in seen.dom and seen.dom.count("<svg") >= 6
    assert seen.console == []
    assert seen.requests == []


def test_the_control_page_that_asks_for_a_picture_is_noticed(tmp_path):
    seen = look_at(
        '<!DOCTYPE html><link rel="icon" href="data:,"><img src="http://picture.invalid/x.png">', tmp_path
    )
    assert seen.requests == ["http://picture.invalid/x.png"]


def test_the_control_page_that_throws_is_noticed(page, tmp_path):
    assert any(
        "is wrong" in line for line in look_at(with_probe(page, "throw Error('is wrong')"), tmp_path).console
    )


def test_its_policy_forbids_requests_even_where_one_got_in(page, tmp_path):
    wanted = """<img src="http://picture.invalid/x.png"><script>fetch("http://data.invalid/y")</script>"""
    seen = look_at(page.replace("</body>", f"{wanted}</body>"), tmp_path)
    assert seen.requests == []
    assert sum("Content Security Policy" in line for line in seen.console) >= 2


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_width_of_a_phone_and_of_a_desk(page, tmp_path, width):
    seen = look_at(
        framed(
            page,
            width,
            "found.width = view.innerWidth; found.needed = inside.documentElement.scrollWidth;"
            "found.type = Math.min(...[...inside.querySelectorAll('p, td, a')].map("
            "  (e) => parseFloat(view.getComputedStyle(e).fontSize)));",
        ),
        tmp_path,
    )
    assert seen.console == []
    assert seen.found["width"] == width
    assert seen.found["needed"] <= width  # wide tables and figures scroll inside themselves
    assert seen.found["type"] >= 12


def test_a_click_on_a_heading_sorts_numbers_as_numbers_and_again_turns_them_round(page, tmp_path):
    seen = look_at(
        with_probe(
            page,
            "const table = document.querySelector('#study-differences table');"
            "const place = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent.startsWith('difference'));"
            "const column = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[place].dataset.value));"
            "const heading = table.tHead.rows[0].cells[place];"
            "heading.querySelector('button').click(); found.up = column(); found.state = heading.ariaSort;"
            "heading.querySelector('button').click(); found.down = column();",
        ),
        tmp_path,
    )
    assert len(seen.found["up"]) == 9
    assert min(seen.found["up"]) < 0  # as text, −2 would stand after −10
    assert seen.found["up"] == sorted(seen.found["up"])
    assert seen.found["state"] == "ascending"
    assert seen.found["down"] == sorted(seen.found["up"], reverse=True)


def test_the_button_turns_the_page_dark_and_the_figures_with_it(page, tmp_path):
    seen = look_at(
        with_probe(
            page,
            "const ink = () => getComputedStyle(document.querySelector('svg path[style*=\"--ink\"]')).stroke;"
            "const paper = () => getComputedStyle(document.body).backgroundColor;"
            "const theme = document.getElementById('theme');"
            "found.before = [ink(), paper()]; theme.click(); found.after = [ink(), paper()];"
            "theme.click(); found.back = [ink(), paper()];",
        ),
        tmp_path,
    )
    assert seen.found["before"] == seen.found["back"]
    assert seen.found["before"][0] != seen.found["after"][0]
    assert seen.found["after"][1] == "rgb(22, 24, 27)"
