"""`tokens.html`: complete in itself, and safe whatever the tokens are."""

import json
import re
from typing import Any

from repro._heatmap import TEMPLATE, render, script_json

NASTY = ["</script><b>bold</b>", "<!-- <script>", '"&\u2028', "{{DATA}}"]


def page(hand_analysis: Any, **changes: Any) -> str:
    sample = {"encoder": {"tokens": NASTY, "cut": False, "layers": {"0": [[[3, 0.5]]] * 4, "1": [[]] * 4}}}
    return render(hand_analysis("sst2", **changes) | {"samples": [sample]})


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_tokens_come_through_and_end_no_element(hand_analysis: Any) -> None:
    text = page(hand_analysis)
    assert text.count("</script>") == 2
    assert "<b>" not in text
    assert "<!--" not in text
    data = data_of(text)
    assert data["samples"][0]["encoder"]["tokens"] == NASTY
    assert data["samples"][0]["encoder"]["layers"]["0"][0] == [[3, 0.5]]
    assert data["layers"] == [{"layer": 0, "stack": "encoder"}, {"layer": 1, "stack": "encoder"}]


def test_the_run_is_escaped(hand_analysis: Any) -> None:
    text = page(hand_analysis, run_id="<i>x</i>")
    assert "<i>" not in text
    assert "&lt;i&gt;x&lt;/i&gt;" in text


def test_it_needs_no_network_and_has_both_looks() -> None:
    template = TEMPLATE.read_text(encoding="utf-8")
    assert not re.search(r"https?://|src=|@import|innerHTML", template)
    assert "prefers-color-scheme: dark" in template
    assert 'name="viewport"' in template


def test_script_json_is_json() -> None:
    value = {"a": ["<>&\u2028\u2029", 1.5, None]}
    assert json.loads(script_json(value)) == value
    assert not set("<>&\u2028\u2029") & set(script_json(value))
