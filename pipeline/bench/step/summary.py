"""The step's benchmark in a few figures: what one asks first."""

from typing import Any

from pipeline.bench.table import spread

LARGEST = 3
"""Parts of a start that are named."""


def cells(results: dict[str, Any]) -> list[list[str]]:
    """What and how much, of the sections that there are."""
    found = []
    for one in results.get("contest", []):
        for each in one["lines"]:
            if each["name"] not in ("ours", "plain", "bare") and not each["failed"]:
                what = f"ours, compiled, against {each['title']}; {one['model']}"
                found.append([what, f"× {spread(each['ours_faster'], '.2f')}"])
    if one := results.get("overhead"):
        what = f"our loop beyond forward, backward and optimizer, a row of metrics every step; {one['model']}"
        found.append([what, spread(one["step_with_row"], "+.2%")])
    if one := results.get("scaling"):
        what = "{ranks} ranks on {ranks} cores, of {ranks} times one rank; {model}".format(**one)
        found.append([what, spread(one["ddp"]["efficiency"], ".2f")])
    if one := results.get("start"):
        case = one["cases"][0]
        longest = sorted(case["parts"], key=case["parts"].get, reverse=True)[:LARGEST]
        named = ", ".join(f"{part} {case['parts'][part]:.1f}" for part in longest)
        found.append(
            [f"from the command to the first step, s (most of it: {named})", spread(case["total"], ".1f")]
        )
    return found
