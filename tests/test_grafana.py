"""The dashboard, read and written again by Grafana's own schema (`grafana-foundation-sdk`, generated from Grafana 11.6)."""

import copy
import json

import pytest

from tests.test_deploy import DASHBOARD, PANELS

sdk = pytest.importorskip("grafana_foundation_sdk", reason="Grafana's schema is not installed: the extra `dev`")
from grafana_foundation_sdk.cog import plugins  # noqa: E402  # after the skip
from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: E402
from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: E402

plugins.register_default_plugins()
OPEN = {"expr", "useValueForTime", "titleFormat", "textFormat", "step"}
"""Keys of annotations that belong to the data source, to which the schema leaves them. That of Prometheus knows these."""


def unknown(dashboard):
    """Paths that the schema does not know, or reads as something else: they are gone, or not the same, once written again."""
    return list(_lost(dashboard, json.loads(JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(dashboard)))), ""))


def _lost(given, found, path):
    if isinstance(given, dict) and isinstance(found, dict):
        for key, value in given.items():
            if key not in found:
                yield f"{path}/{key}"
            else:
                yield from _lost(value, found[key], f"{path}/{key}")
    elif isinstance(given, list) and isinstance(found, list) and len(given) == len(found):
        for i, (one, other) in enumerate(zip(given, found, strict=True)):
            yield from _lost(one, other, f"{path}/{i}")
    elif given != found:
        yield path


def test_grafana_knows_every_key_of_the_dashboard():
    known_elsewhere = {
        f"/annotations/list/{i}/{key}" for i, each in enumerate(DASHBOARD["annotations"]["list"]) for key in OPEN & each.keys()
    }
    assert set(unknown(DASHBOARD)) <= known_elsewhere


def broken(change):
    dashboard = copy.deepcopy(DASHBOARD)
    change(next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries"), dashboard)
    return dashboard


def renamed(values, old, new):
    values[new] = values.pop(old)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda panel, _: renamed(panel, "gridPos", "gridPosition"), "gridPosition"),
        (lambda panel, _: renamed(panel["fieldConfig"]["defaults"]["custom"], "lineWidth", "linewidth"), "custom/linewidth"),
        (lambda panel, _: renamed(panel["options"]["legend"], "displayMode", "mode"), "legend/mode"),
        (lambda panel, _: renamed(panel["targets"][0], "legendFormat", "legend"), "targets/0/legend"),
        (lambda panel, _: renamed(panel["fieldConfig"]["defaults"], "unit", "units"), "defaults/units"),
        (lambda _, dashboard: renamed(dashboard, "templating", "variables"), "/variables"),
    ],
    ids=["panel", "field", "option", "query", "unit", "dashboard"],
)
def test_a_misspelt_key_is_noticed(change, where):
    assert [path for path in unknown(broken(change)) if path.endswith(where)]


def test_every_kind_of_panel_has_a_schema_of_its_own():
    kinds = {panel["type"] for panel in PANELS}
    for kind in kinds:
        dashboard = copy.deepcopy(DASHBOARD)
        next(panel for panel in dashboard["panels"] if panel["type"] == kind)["options"]["moonlight"] = 1
        assert [path for path in unknown(dashboard) if path.endswith("options/moonlight")], kind
