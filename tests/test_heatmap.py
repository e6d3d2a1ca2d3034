"""`tokens.html`: complete in itself, and safe whatever the tokens are."""

import json
import re

from factories import make_analysis
from pydantic import JsonValue

from repro.analysis.heatmap import render, script_json
from repro.results.analysis import SampleStack, TokenExpert

NASTY = ["</script><b>bold</b>", "<!-- <script>", '"&\u2028', "{{ data }}"]


def page(run_id: str = "a-run") -> str:
    layers: dict[str, list[list[TokenExpert]]] = {"0": [[TokenExpert(3, 0.5)]] * 4, "1": [[]] * 4}
    encoder = SampleStack(tokens=NASTY, cut=False, layers=layers)
    return render(make_analysis("sst2", run_id=run_id, samples=[{"encoder": encoder}]))


def data_of(text: str) -> JsonValue:
    element = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert element
    data: JsonValue = json.loads(element[1])
    return data


def test_tokens_come_through_and_end_no_element() -> None:
    text = page()
    assert text.count("</script>") == 2
    assert "<b>" not in text
    assert "<!--" not in text
    layers = {"0": [[[3, 0.5]]] * 4, "1": [[]] * 4}
    assert data_of(text) == {
        "layers": [{"layer": 0, "stack": "encoder"}, {"layer": 1, "stack": "encoder"}],
        "samples": [{"encoder": {"tokens": NASTY, "cut": False, "layers": layers}}],
    }


def test_the_run_is_named() -> None:
    assert "<h1>a-run</h1>" in page(run_id="a-run")


def test_it_needs_no_network_and_has_both_looks() -> None:
    text = page()
    assert not re.search(r"https?://|src=|@import|innerHTML", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_script_json_is_json() -> None:
    value = {"a": ["<>&\u2028\u2029", 1.5, None]}
    assert json.loads(script_json(value)) == value
    assert not set("<>&\u2028\u2029") & set(script_json(value))
