"""The look of the report: one style sheet, light and dark."""

STYLE = """
:root{--ink:#17202a;--soft:#5c6b7a;--line:#e4e8ed;--page:#f6f8fa;--card:#fff;--good:#1a7f4b;--bad:#b3261e;--warn:#a15c00;--info:#2d6cae;--now:#4b8bd6;--old:#e07a1f}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa7b4;--line:#2d3640;--page:#0f151b;--card:#182029;--good:#3fb97a;--bad:#f0665d;--warn:#e3a443;--info:#6fa8e6;--now:#4b8bd6;--old:#f0a35e}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1.5rem 1.2rem 3rem;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
header{background:var(--card);border:1px solid var(--line);border-left:8px solid var(--good);border-radius:8px;padding:1.1rem 1.4rem}
header.bad{border-left-color:var(--bad)}header p{margin:.2rem 0;color:var(--soft)}header p b{color:var(--ink)}
.mark{font-weight:700;text-transform:uppercase;letter-spacing:.08em;font-size:.85rem}.good .mark{color:var(--good)}.bad .mark{color:var(--bad)}
h1{font-size:1.55rem;line-height:1.25;margin:.1rem 0 .4rem}h2{font-size:1.15rem;margin:2.2rem 0 .7rem}h3{font-size:1rem;margin:0;overflow-wrap:anywhere}
.also{font-weight:600;color:var(--ink)!important}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:.7rem;margin-top:.8rem}
.tiles div,.card,article{background:var(--card);border:1px solid var(--line);border-radius:8px}
.tiles div{padding:.6rem 1rem}.tiles b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.tiles span{color:var(--soft);font-size:.85rem}
article{padding:.9rem 1.1rem;margin:.7rem 0;border-left:4px solid var(--bad)}article.warning{border-left-color:var(--warn)}article.info{border-left-color:var(--info)}
article p{margin:.3rem 0}.why{color:var(--soft);font-size:.9rem}article>code{display:block;margin-top:.5rem;color:var(--soft);font-size:.78rem}
.estimate{color:var(--warn);font-size:.9rem}
.error{color:var(--bad);overflow-wrap:anywhere}
.row{display:flex;justify-content:space-between;gap:1rem;align-items:baseline}
.tag{font-size:.75rem;color:var(--soft);border:1px solid var(--line);border-radius:1rem;padding:.05rem .6rem;white-space:nowrap;max-width:12rem;overflow:hidden;text-overflow:ellipsis;flex:none}
.tag.critical{color:var(--bad);border-color:currentColor}.tag.warning{color:var(--warn);border-color:currentColor}.tag.info{color:var(--info);border-color:currentColor}
.meter{background:var(--line);border-radius:3px;height:6px;overflow:hidden;margin:.3rem 0 .5rem;max-width:24rem}.meter i{display:block;height:100%;background:var(--bad)}
.warning .meter i{background:var(--warn)}.meter.inline{display:inline-block;width:4rem;margin:0 .3rem 0 0;vertical-align:middle}.meter.inline i{background:var(--old)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums;background:var(--card);border-radius:6px}
th,td{text-align:left;padding:.32rem .7rem;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}th{color:var(--soft);font-weight:600;font-size:.8rem;white-space:nowrap}
.examples{max-width:48rem;margin-top:.4rem}.examples td:last-child{color:var(--soft);white-space:nowrap}.numbers td{white-space:nowrap}
q{quotes:none;font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.92em;white-space:pre-wrap}em{color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:.8rem}.card{padding:.8rem 1rem;min-width:0}.card p{margin:.5rem 0 0;color:var(--soft);font-size:.82rem}
.card .row{margin-bottom:.5rem}svg{display:block;max-width:100%}.card svg{width:100%}.now{fill:var(--now)}.old{fill:none;stroke:var(--old);stroke-width:1.5;vector-effect:non-scaling-stroke}
.trend{fill:none;stroke:var(--now);stroke-width:1.5}.last{fill:var(--old)}
.axis{display:flex;justify-content:space-between;color:var(--soft);font-size:.75rem;border-top:1px solid var(--line);padding-top:.15rem}
.bar{display:grid;grid-template-columns:8rem 1fr 3.2rem;gap:.5rem;align-items:center;font-size:.8rem;margin:.15rem 0}.bar b{font-weight:500;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.bar span{position:relative;background:var(--line);border-radius:3px;height:10px}.bar u{display:block;height:100%;background:var(--now);border-radius:3px}.bar i{position:absolute;top:-2px;width:2px;height:14px;background:var(--old)}.bar q{text-align:right;color:var(--soft);font-family:inherit}
.key{color:var(--soft);font-size:.82rem;margin:0 0 .6rem}.key i{display:inline-block;width:.9rem;height:.6rem;margin:0 .35rem 0 1rem;background:var(--now)}.key i:first-child{margin-left:0}.key i.old{background:none;border-top:2px solid var(--old);height:.2rem}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--info)}ul{padding-left:1.2rem;margin:.4rem 0}li{font-size:.88rem;overflow-wrap:anywhere}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.8rem;margin:.3rem 0;color:var(--soft)}footer{margin-top:2.5rem;color:var(--soft);font-size:.8rem;font-family:ui-monospace,Menlo,Consolas,monospace}
@media print{body{background:#fff}details>summary{display:none}}
"""
