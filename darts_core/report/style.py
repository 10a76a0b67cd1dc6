"""The page's style sheet: one for light and dark, for screens and paper; no fonts are loaded."""

from __future__ import annotations

from darts_core.report.palette import COLORS, KINDS

__all__ = ["style_sheet"]

_BASE = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif}
main,header.top,footer{max-width:1160px;margin:0 auto;padding:0 28px}
header.top{padding-top:44px;padding-bottom:6px}
.crumb{color:var(--soft);font-size:14px;margin:0 0 6px}
h1{font-size:31px;line-height:1.22;letter-spacing:-.015em;margin:0 0 10px;font-weight:680;
text-wrap:balance;max-width:30em;overflow-wrap:anywhere}
.lead{font-size:17px;color:var(--soft);margin:0 0 22px;max-width:46em}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;border-bottom:1px solid var(--line);padding:10px 0 12px;
font-size:14px}
nav a{color:var(--soft);text-decoration:none}
nav a:hover,nav a:focus{color:var(--accent);text-decoration:underline}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(168px,1fr));gap:12px;margin:0 0 24px}
.tile{background:var(--surface);border:1px solid var(--line);border-radius:12px;padding:14px 16px 12px}
.tile b{display:block;font-size:25px;line-height:1.2;font-weight:650;letter-spacing:-.01em;
font-variant-numeric:tabular-nums}
.tile .unit{font-size:15px;font-weight:500;color:var(--soft)}
.tile .what{display:block;color:var(--soft);font-size:13px}
.tile .vs{display:block;font-size:13px;margin-top:3px}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
section{margin:38px 0}
h2{font-size:21px;letter-spacing:-.01em;margin:0 0 4px;font-weight:650}
h3{font-size:15px;margin:22px 0 6px;font-weight:620}
.note{color:var(--soft);margin:0 0 14px;max-width:70em}
.card{background:var(--surface);border:1px solid var(--line);border-radius:14px;padding:18px 20px;
margin:14px 0}
.card>h3:first-child{margin-top:0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:16px;margin:14px 0}
.pair .card{margin:0;min-width:0}
.scroll{overflow-x:auto}
svg{display:block;max-width:100%;height:auto;font-family:inherit}
.legend svg{display:inline-block;width:16px;vertical-align:-3px}
figure{margin:0}
.cell-figure+.cell-figure{margin-top:16px;border-top:1px solid var(--line);padding-top:14px}
figcaption{font-weight:620;font-size:15px;margin-bottom:4px}
figcaption::first-letter{text-transform:uppercase}
svg.cell{margin:0 auto;min-width:560px}
svg.heat{min-width:760px}
.legend{margin:12px 0 0;color:var(--soft);font-size:13px;display:flex;flex-wrap:wrap;gap:4px 18px}
.key{display:inline-flex;align-items:center;gap:6px}
.dot{width:12px;height:12px;border-radius:4px;display:inline-block}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{font-weight:600;text-align:left;color:var(--soft);font-size:13px;vertical-align:bottom}
th,td{padding:7px 12px 7px 0;border-bottom:1px solid var(--line)}
tbody tr:last-child td,tbody tr:last-child th{border-bottom:0}
td.num,th.num{text-align:right;padding-right:16px;white-space:nowrap}
table.trials td,table.trials th{white-space:nowrap}
td.name{white-space:nowrap;max-width:320px;overflow:hidden;text-overflow:ellipsis}
td small,.dim{color:var(--faint);font-size:12.5px}
tbody tr.is-base{background:var(--sunken)}
tbody tr.is-front td:first-child{box-shadow:inset 3px 0 0 var(--good)}
td:first-child,th:first-child{padding-left:12px}
table.plain{width:auto;min-width:min(420px,100%)}
table.plain th{color:var(--soft);font-weight:500;padding-right:28px}
table.plain td{overflow-wrap:anywhere}
.tag{display:inline-block;border-radius:99px;padding:1px 9px;font-size:12px;
background:var(--sunken);color:var(--soft);white-space:nowrap}
.callout{border-left:4px solid var(--warn);background:var(--surface);border-radius:0 12px 12px 0;
padding:11px 16px;margin:10px 0}
.callout.ok{border-color:var(--good)}.callout.bad{border-color:var(--bad);color:inherit}
.callout ul{margin:4px 0 0;padding-left:20px}
pre{background:var(--sunken);border-radius:10px;padding:13px 16px;overflow-x:auto;margin:8px 0;
font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
code{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
details{margin:10px 0}summary{cursor:pointer;color:var(--accent);font-size:14px}
footer{color:var(--faint);font-size:13px;padding-top:10px;padding-bottom:44px}
/* drawings */
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--faint);stroke-width:1}
text{fill:var(--ink);font-size:12px}
.tick{fill:var(--soft);font-size:11.5px;font-variant-numeric:tabular-nums}
.axis-title{fill:var(--soft);font-size:12px}
.mid{text-anchor:middle}.end{text-anchor:end}
.label{font-size:12px;font-weight:560}.halo{paint-order:stroke;stroke:var(--surface);stroke-width:4px;
stroke-linejoin:round}
.series{stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.series.faint{stroke-width:1.1;opacity:.42}
.bar-label,.bar-value{dominant-baseline:middle;font-size:12px}.bar-label{fill:var(--soft)}
.bar-before{fill:var(--none);opacity:.25}
.state{fill:var(--surface);stroke:var(--ink);stroke-width:1.5}
.state.node{fill:var(--ink)}.state.node+.state-text{fill:var(--paper)}
.state.input,.state.output{fill:var(--sunken);stroke:var(--faint)}
.state-text{text-anchor:middle;font-size:13px;font-weight:600}
.op{stroke-width:1.5}.op-text{text-anchor:middle;font-size:12px;font-weight:560}
.ghost{opacity:.62}.ghost .op{stroke-dasharray:4 3}
.edge{fill:none;stroke-width:2}.e-concat{stroke:var(--faint);opacity:.5;stroke-width:1.3}
.e-none{stroke:var(--none);stroke-dasharray:4 4;stroke-width:1.2;opacity:.7}
.map-frame{fill:var(--sunken);opacity:.6}.map-lead{fill:none;stroke:var(--ink);stroke-width:1.1;
opacity:.75}
.map-op{fill:var(--soft);font-size:10.5px}.edge-name{font-size:11.5px;font-weight:600}
.heat .lead{font-size:11px;font-weight:560}
.front{stroke:var(--good);stroke-width:2;stroke-linejoin:round;opacity:.75}
.better{fill:var(--good);opacity:.09}.better-text{fill:var(--good);font-size:12px}
.base-line{stroke:var(--baseline);stroke-width:1.2;stroke-dasharray:5 4;opacity:.8}
.thread{stroke-width:1.2;opacity:.45}.error{stroke-width:1.4;opacity:.6}
.mark{stroke:var(--surface);stroke-width:1.4}
.hollow{fill:var(--surface);stroke-width:1.6;opacity:.7}
.coord{stroke:var(--searched);stroke-width:1.4;stroke-linejoin:round}
.coord.best{stroke:var(--pruned);stroke-width:3}.coord-axis{stroke:var(--faint)}
g:hover>.coord{stroke:var(--ink);stroke-width:2.6;stroke-opacity:1}
.fill-soft{fill:var(--soft)}
@media(max-width:640px){.scroll svg.chart{min-width:440px}}
@media(max-width:640px){main,header.top,footer{padding-left:16px;padding-right:16px}h1{font-size:25px}}
@media print{body{background:#fff}section{break-inside:avoid}nav{display:none}}
"""


def style_sheet() -> str:
    """The whole sheet: colours for both schemes, the page, and one rule a colour for drawings."""
    light = "".join(f"--{name}:{pair[0]};" for name, pair in COLORS.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in COLORS.items())
    rules = []
    for name in COLORS:
        rules.append(f".fill-{name}{{fill:var(--{name})}}.t-{name}{{fill:var(--{name})}}")
        rules.append(f".s-{name}{{stroke:var(--{name})}}.d-{name}{{background:var(--{name})}}")
        if name not in KINDS:
            rules.append(
                f".f-{name}{{fill:color-mix(in srgb,var(--{name}) 13%,var(--surface));"
                f"stroke:var(--{name})}}.e-{name}{{stroke:var(--{name})}}"
            )
    # rules of single classes come first, so that the drawings' own rules may narrow them
    return (
        f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
        + "".join(rules)
        + _BASE
    )
