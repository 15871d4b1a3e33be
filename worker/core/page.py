"""The frame and the look of every page we make: no script, no outside source, everything escaped by its writer."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape

_LOOK = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #5d6779; --line: #e1e5ec; --page: #f6f7f9; --card: #fff;
  --good: #12805c; --busy: #2563c9; --wait: #9a5700; --bad: #c0362c; --shade: #f0f2f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2b3340; --page: #10141b;
  --card: #181e27; --good: #4cc38a; --busy: #7fb0ff; --wait: #e0a458; --bad: #ff8a80; --shade: #222a36; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 2.2rem 0 .7rem; }
p { margin: .3rem 0 .8rem; } a { color: var(--busy); } .soft { color: var(--soft); }
code, pre { font: .86em/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.card, .scroll { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.card { padding: .9rem 1.1rem; margin: 0 0 .8rem; } .scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .93rem; }
th, td { text-align: left; padding: .5rem .9rem; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; } .number { text-align: right; white-space: nowrap; }
.good { color: var(--good); } .busy { color: var(--busy); } .wait { color: var(--wait); } .bad { color: var(--bad); }
"""


def policy(style: str) -> str:
    """The Content-Security-Policy of a page with this `style`: that one sheet, and nothing else at all."""
    digest = base64.b64encode(hashlib.sha256(_sheet(style).encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def document(title: str, body: str, *, style: str = "", refresh_s: int | None = None) -> str:
    """One whole page. `title` is text; `body` is HTML whose writer escaped what it shows; `style` is more CSS."""
    refresh = f'<meta http-equiv="refresh" content="{refresh_s}">' if refresh_s is not None else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="content-security-policy" content="{escape(policy(style))}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"{refresh}<title>{escape(title)}</title><style>{_sheet(style)}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _sheet(style: str) -> str:
    # Browsers turn a carriage return into a line feed before they hash.
    return re.sub(r"\r\n?", "\n", _LOOK + style)
