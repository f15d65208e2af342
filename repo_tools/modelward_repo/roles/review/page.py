"""A review as one page to print, with a QR code of the request's digest."""

import html as escape
import io

import segno

from modelward_repo.roles.review import Review, text

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Signing request {words}</title>
<style>
@page {{ size: A4; margin: 12mm }}
body {{ font: 10pt/1.35 sans-serif; color: #000; background: #fff; max-width: 190mm; margin: auto }}
header {{ display: flex; gap: 8mm; align-items: center; border-bottom: 2px solid }}
h1 {{ font: bold 20pt monospace; margin: 0 }}
pre {{ font: 8pt/1.3 monospace; white-space: pre-wrap }}
table {{ border-collapse: collapse; width: 100% }}
td {{ border: 1px solid; padding: 3mm }}
code {{ font-size: 8pt; word-break: break-all }}
</style>
<header><div>{qr}</div><div>
<p>Signing request. Every signer must see these words:</p>
<h1>{words}</h1>
<p>SHA-256 of what is proposed, also in the QR code:<br><code>{digest}</code></p>
</div></header>
<pre>{text}</pre>
<table>{rows}</table>
</html>
"""


def html(review: Review) -> str:
    """Return the page: self-contained, no script, nothing loaded from anywhere."""
    request = review.request
    lines = [line for part in _PARTS for line in part(review)]
    signers = dict.fromkeys(
        str(who) for side in review.sides for who in (*side.signed, *side.missing)
    )
    rows = "".join(
        f"<tr><td>{escape.escape(who)}</td><td>words compared</td><td>signed (date, name)</td></tr>"
        for who in signers
    )
    return _PAGE.format(
        words=escape.escape(request.words),
        digest=escape.escape(request.digest),
        qr=_qr(f"{request.words} sha256:{request.digest}"),
        text=escape.escape("\n".join(lines)),
        rows=rows,
    )


_PARTS = (text.header, text.changes, text.warnings, text.powers, text.signatures)


def _qr(content: str) -> str:
    out = io.BytesIO()
    segno.make(content, error="m").save(
        out, kind="svg", scale=3, xmldecl=False, svgns=True, nl=False
    )
    return out.getvalue().decode()
