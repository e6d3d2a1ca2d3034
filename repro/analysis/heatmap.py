"""`tokens.html`: sample sequences, each token shaded by how many experts it used."""

import json

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from repro.results.analysis import Analysis


def render(analysis: Analysis) -> str:
    """Return one page that needs nothing else: style, script and data are in it."""
    templates = Environment(
        loader=PackageLoader("repro.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    templates.filters["script_json"] = script_json
    data = {
        "layers": [{"layer": layer.layer, "stack": layer.stack} for layer in analysis.layers],
        "samples": [{stack: part.to_json() for stack, part in sample.items()} for sample in analysis.samples],
    }
    return templates.get_template("tokens.html").render(run_id=analysis.run_id, data=data)


def script_json(value: object) -> Markup:
    """Return JSON that may stand in a script element.

    No `<` is in it, so neither `</script>` nor `<!--` ends the element early.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)
