"""The page in a browser: silent, and no wider than a phone."""

import json
import re
import shutil
import subprocess

import pytest

PHONE = (
    "<script>addEventListener('load', () => {"
    "const frame = document.createElement('iframe'); frame.style.width = '390px'; frame.srcdoc = PAGE;"
    "frame.onload = () => { const page = frame.contentDocument.documentElement;"
    "document.title = 'width ' + page.scrollWidth + ' of ' + page.clientWidth; };"
    "document.body.replaceChildren(frame); });</script>"
)


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine")
    return found


def look(browser, page, folder):
    """The DOM after loading, and what the browser logged."""
    words = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=5000",
    )
    done = subprocess.run(
        [browser, *words, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_browser_has_nothing_to_say(browser, pages, tmp_path):
    for text in pages:
        page = tmp_path / "page.html"
        page.write_text(text)
        dom, console = look(browser, page, tmp_path)
        assert console == [] and "</html>" in dom


def test_page_is_no_wider_than_a_phone(browser, pages, tmp_path):
    """In a frame of 390 px, since a headless window has a smallest width; with everything folded out."""
    for text in pages:
        literal = json.dumps(text.replace("<details>", "<details open>")).replace("</", "<\\/")
        frame = tmp_path / "frame.html"
        frame.write_text(f"<!DOCTYPE html><body>{PHONE.replace('PAGE', literal)}</body>")
        dom, _ = look(browser, frame, tmp_path)
        needed, given = map(int, re.search(r"<title>width (\d+) of (\d+)</title>", dom).groups())
        assert needed <= given <= 390
