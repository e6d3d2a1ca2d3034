"""`tokens.html`: sample sequences, each token shaded by how many experts it used."""

import html
import json
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).parent / "templates" / "tokens.html"


def render(analysis: dict[str, Any]) -> str:
    """One page that needs nothing else: style, script and data are in it.

    Args:
        analysis: what `analysis.analyze_run` gives, with `samples`.
    """
    title = f"{analysis['run_id']}: experts by token"
    data = {
        "layers": [{"layer": one["layer"], "stack": one["stack"]} for one in analysis["layers"]],
        "samples": analysis["samples"],
    }
    values = {"TITLE": html.escape(title), "RUN": html.escape(analysis["run_id"]), "DATA": script_json(data)}
    page = TEMPLATE.read_text(encoding="utf-8")
    # The data come last: nothing in them is taken for a placeholder.
    for name in ("TITLE", "RUN", "DATA"):
        page = page.replace("{{" + name + "}}", values[name])
    return page


def script_json(value: Any) -> str:
    """JSON that may stand in a script element: no `<`, so neither `</script>` nor `<!--` ends it early."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
