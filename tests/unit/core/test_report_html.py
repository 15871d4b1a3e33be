"""The page of a report: whole in itself, true to the ledger, and no text of a stranger becomes markup."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.test_report_sarif import FINDING, REPORT
from worker.core.finding import Anchor
from worker.core.ledger import Ledger, NotReviewed
from worker.core.report_html import report_html

OURS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "b",
        "code",
        "pre",
        "span",
    ),
    *("ul", "li", "svg", "rect", "article", "div", "table", "thead", "tbody", "tr", "th", "td"),
}
VOID = {"meta"}


class Page(HTMLParser):
    """Tags and text of a page; fails on a tag or attribute that is none of ours, and on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in OURS
        assert not any(name.startswith("on") or name in ("href", "src", "style") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_shows_findings_by_file_with_their_lines_and_the_ledger() -> None:
    ledger = Ledger(66, 10, (NotReviewed("yarn.lock", "lock file", 56),))
    text = Page(report_html(replace(REPORT, ledger=ledger))).text
    for shown in (
        "Review of main..topic", "10 of 66 changed lines reviewed", "src/a b.py", "Divides by zero", "lines 3–5",
        "yarn.lock", "lock file", "kimi-k2.6", "return total / max(1, count)",
    ):  # fmt: skip
        assert shown in text
    assert "`" not in text, "code spans are drawn as code"


def test_a_stand_in_is_named_as_no_model() -> None:
    assert "No model took part" in Page(report_html(replace(REPORT, is_standin=True))).text


def test_fenced_code_is_code_and_an_open_fence_ends_with_the_text() -> None:
    body = "Before.\n\n```python\nif a < b:\n    eval(x)\n```\nAfter.\n\n```\nopen"
    html = report_html(replace(REPORT, findings=(replace(FINDING, body=body),)))
    assert '<pre tabindex="0">if a &lt; b:\n    eval(x)\n</pre>' in html
    assert '<pre tabindex="0">open</pre>' in html


def test_its_policy_lets_in_its_own_style_sheet_and_nothing_else() -> None:
    html = report_html(REPORT)
    [style] = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = re.findall(r'http-equiv="content-security-policy" content="([^"]*)"', html)
    assert "default-src &#x27;none&#x27;" in policy
    assert f"style-src &#x27;sha256-{digest}&#x27;" in policy
    assert "unsafe" not in policy


HOSTILE = st.text() | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "`<img src=x onerror=1>`",
        '"><svg onload=1>',
        "```\n</pre><b>",
        "</style>",
        "&lt;",
        "]]>",
    ]
)


@given(text=HOSTILE)
def test_whatever_a_stranger_writes_stays_text(text: str) -> None:
    finding = replace(
        FINDING, title=text, body=text, suggestion=text, category=text, anchor=Anchor(text, "LEFT", 1, 1), path=text
    )
    ledger = Ledger(1, 0, (NotReviewed(text, text, 1),))
    unanchored = (replace(finding, anchor=None),)
    Page(
        report_html(
            replace(
                REPORT,
                change=text,
                model=text,
                findings=(finding,),
                unanchored=unanchored,
                ledger=ledger,
                notes=(text,),
            )
        )
    )


def test_a_page_without_findings_says_that_there_are_none_in_what_was_reviewed() -> None:
    said = "No findings in the lines that were reviewed."
    silent = replace(REPORT, findings=(), unanchored=())
    assert said in report_html(replace(silent, ledger=Ledger(3, 3)))
    assert said not in report_html(replace(silent, ledger=Ledger(3, 0, (NotReviewed("a.py", "budget", 3),))))


def test_code_and_bold_in_a_title_are_drawn_and_its_headings_have_one_order() -> None:
    finding = replace(FINDING, title="`acquire()` is **never** released")
    html = report_html(replace(REPORT, findings=(finding,), unanchored=(replace(finding, anchor=None),)))
    for heading in ("h4", "h3"):
        assert f'<{heading} class="title"><code>acquire()</code> is <b>never</b> released</{heading}>' in html
    levels = [int(level) for level in re.findall(r"<h([1-6])", html)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_scrolls_can_be_reached_and_read_by_its_name_without_a_mouse() -> None:
    html = report_html(replace(REPORT, ledger=Ledger(66, 10, (NotReviewed("yarn.lock", "lock file", 56),))))
    assert '<h2 id="left-out">' in html
    assert 'role="region" aria-labelledby="left-out" tabindex="0"' in html
    assert html.count('<th scope="col"') == html.count("<th") - html.count("<thead")
    assert all("tabindex" in tag for tag in re.findall(r"<pre[^>]*>", html))


def test_a_stand_in_costs_nothing_and_is_told_on_its_page() -> None:
    text = Page(report_html(replace(REPORT, is_standin=True))).text
    assert "No model took part" in text
    assert "$" not in text.partition("Cost")[2]
