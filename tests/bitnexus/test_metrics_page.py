"""docs/metrics.md and deploy/alerts.yml speak of the metrics that there are, and of all of them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from bitnexus import telemetry

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(bitnexus_\w+)` \| (\w+) \|(.*?)\| (.+) \|$", re.MULTILINE)


class Declared(NamedTuple):
    type: str
    labels: frozenset[str]


def declared() -> dict[str, Declared]:
    """Every metric of a process."""
    process = telemetry.Telemetry()
    found: dict[str, Declared] = {}
    for collector in process._registry._collector_to_names:
        assert isinstance(collector, MetricWrapperBase)
        (family,) = collector.collect()
        suffix = "_total" if family.type == "counter" else ""
        found[family.name + suffix] = Declared(family.type, frozenset(collector._labelnames))
    for family in telemetry._Lags([]).collect():
        labels = frozenset(getattr(family, "_labelnames", ()))
        found[family.name] = Declared(family.type, labels)
    return found


def described() -> dict[str, Declared]:
    page = (ROOT / "docs/metrics.md").read_text()
    return {
        name: Declared(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in ROW.findall(page)
    }


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
    (group,) = document["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_the_page_names_every_metric_with_its_type_and_labels() -> None:
    """Whoever writes an alert has the page, not the code."""
    found = declared()
    assert len(found) > 20
    assert described() == found


def test_a_label_that_names_a_tenant_is_bounded() -> None:
    """A new metric by tenant would have to be cut to the busiest too."""
    assert {name for name, metric in declared().items() if "tenant" in metric.labels} == {
        f"bitnexus_view_{name}"
        for name in ("lag_events", "lag_seconds", "parked_originators", "stopped", "events_per_second")
    }


def test_alerts_speak_of_metrics_and_labels_that_there_are() -> None:
    """A rule on a metric that is gone never fires."""
    known = declared()
    series = {
        name + suffix: metric
        for name, metric in known.items()
        for suffix in (("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",))
    }
    for rule in rules():
        used = set(re.findall(r"\bbitnexus_\w+", rule["expr"]))
        assert used <= set(series), rule["alert"]
        assert used or "up{" in rule["expr"], rule["alert"]
        for name, chosen in re.findall(r"(bitnexus_\w+)\{([^}]*)\}", rule["expr"]):
            assert set(re.findall(r"(\w+)\s*[=!]", chosen)) <= series[name].labels, rule["alert"]
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in group.split(",")}
        assert grouped - {"le"} <= frozenset[str]().union(*(series[name].labels for name in used)), rule["alert"]
        told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert told <= (grouped or {"instance", "pool"}), rule["alert"]


def test_alerts_say_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["for"]
        assert set(rule["annotations"]) == {"summary", "action"}


def test_prometheus_takes_the_rules_and_its_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip(
            "promtool is not here (Debian's package prometheus): the expressions of deploy/alerts.yml are unchecked"
        )
    for arguments in (["rules", "deploy/alerts.yml"], ["config", "--syntax-only", "deploy/prometheus.yml"]):
        checked = subprocess.run([promtool, "check", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
