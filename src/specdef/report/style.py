"""Style of the report page: narrow and wide screens, light and dark."""

from __future__ import annotations

from specdef.report.marks import mark_style

_PAGE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606a; --back: #ffffff; --card: #f6f8fa; --line: #d0d7de;
  --open: #a12d00; --open-back: #ffe9de; --slow: #6b4e00; --slow-back: #fff3cd; --held: #0b5394; --held-back: #e3f0fb;
  --none: #57606a; --none-back: #eaeef2; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9aa5b1; --back: #0d1117; --card: #161b22;
  --line: #30363d; --open: #ffab8a; --open-back: #4a1d0b; --slow: #f2cf66; --slow-back: #3d3108; --held: #9fd0ff;
  --held-back: #0e2a47; --none: #b1bac4; --none-back: #21262d; } }
@media (prefers-color-scheme: dark) { img { filter: brightness(.85); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1.25rem; background: var(--back); color: var(--text);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.headline { font-size: 1.2rem; line-height: 1.45; font-weight: 600; padding: .8rem 1rem; border-left: .35rem solid;
  border-radius: .25rem; margin: .75rem 0; }
.badges { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; margin: 1rem 0; list-style: none; }
.badge { border: 1px solid; border-radius: 1rem; padding: .1rem .7rem; font-size: .9rem; font-weight: 600;
  white-space: nowrap; }
.open { color: var(--open); background: var(--open-back); } .slow { color: var(--slow); background: var(--slow-back); }
.held { color: var(--held); background: var(--held-back); } .none { color: var(--none); background: var(--none-back); }
.scroll { overflow-x: auto; margin: .5rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .88rem; min-width: 100%; overflow-wrap: normal; }
caption { text-align: left; color: var(--soft); padding: 0 0 .4rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2.5rem); }
.verdict { min-width: max(100%, 56rem); }
th, td { border: 1px solid var(--line); padding: .35rem .55rem; text-align: left; vertical-align: top; }
thead th { background: var(--card); } tbody th { font-weight: 500; min-width: 5rem; max-width: 19rem; }
.paper td, .paper thead th { white-space: nowrap; font-variant-numeric: tabular-nums; }
.paper tbody th { min-width: 6rem; } .paper small { display: block; white-space: normal; }
.compare td { min-width: 10rem; } .compare small { display: block; }
.verdict td:nth-child(3) { min-width: 13rem; overflow-wrap: anywhere; } td.value { overflow-wrap: anywhere; }
.provenance tbody th { min-width: 7rem; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; }
img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: .25rem; }
details { border: 1px solid var(--line); border-radius: .25rem; margin: .35rem 0; padding: .35rem .7rem; }
summary { cursor: pointer; } details[open] summary { margin-bottom: .5rem; } details table { min-width: 0; }
details p { margin: .3rem 0; } .legend, .note { color: var(--soft); font-size: .9rem; }
pre { background: var(--card); border: 1px solid var(--line); padding: .7rem; white-space: pre-wrap; }
a { color: var(--held); } td a, .badge a { color: inherit; }
:focus-visible { outline: 2px solid var(--held); outline-offset: 2px; }
details:target { scroll-margin-top: 1rem; outline: 2px solid var(--held); outline-offset: 2px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: .8rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 1rem; }
.card { border: 1px solid var(--line); border-radius: .25rem; padding: .7rem .9rem; }
.card h3 { margin: 0 0 .5rem; } .card p { margin: .6rem 0 0; font-size: .92rem; } .card .badge { display: inline-block;
  white-space: normal; }
dl { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin: 0; } dt { color: var(--soft); font-size: .82rem; }
dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.rates figcaption { margin: 0 0 .6rem; }
.marks { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; list-style: none; font-size: .9rem; }
.marks li { display: flex; align-items: center; gap: .3rem; } .sample { flex: none; }
.rates .row { margin: .7rem 0 .1rem; font-size: .9rem; font-weight: 600; } .rates .row.none { background: none;
  font-weight: 400; margin: 0; }
.lanes { display: block; background: var(--card); border-radius: .25rem; overflow: hidden; }
.grid { stroke: var(--line); stroke-width: 1; }
.full { fill: currentColor; stroke: var(--card); stroke-width: 1; }
.line { fill: none; stroke: currentColor; stroke-width: 2.4; }
.ring { fill: none; stroke: var(--text); stroke-width: 1.5; } .touch { fill: transparent; }
.lanes a:hover .touch, .lanes a:focus-visible .touch { stroke: var(--text); stroke-width: 2; }
.lanes a { outline: none; }
.axis { display: block; fill: var(--soft); color: var(--soft); font-size: .75rem; margin: 0; text-align: center; }
@media (max-width: 40rem) { body { padding: .8rem; } .headline { font-size: 1.05rem; } }
@media print { details { break-inside: avoid; } body { max-width: none; } }
"""
CSS = _PAGE + mark_style()
"""What every page carries."""
