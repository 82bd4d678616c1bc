"""What is shipped in docker-compose.yml and deploy/ is contained, pinned, and speaks of things that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.settings import load
from pipeline.settings_schema import TopicSettings
from tests.brokers import IMAGE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")
Service = dict[str, Any]  # what YAML holds

every_service = pytest.mark.parametrize("service", COMPOSE["services"].values(), ids=COMPOSE["services"])


def built(service: Service) -> bool:
    return "build" in service


@every_service
def test_every_image_is_built_here_or_pinned_to_a_release(service: Service) -> None:
    assert built(service) or PINNED.fullmatch(service["image"])


def test_the_images_that_are_built_start_from_a_pinned_release() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    names = {name for _, name in stages}
    outside = {image for image, _ in stages} - names
    assert outside
    assert all(PINNED.fullmatch(image) for image in outside)
    assert {service["build"]["target"] for service in COMPOSE["services"].values() if built(service)} <= names


def test_the_broker_is_the_release_that_the_tests_run_on() -> None:
    assert COMPOSE["services"]["kafka"]["image"] == IMAGE


@every_service
def test_nothing_runs_as_root(service: Service) -> None:
    user = "10001:10001" if built(service) else service["user"]
    assert user.split(":")[0] not in ("", "0", "root")
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


@every_service
def test_nothing_can_gain_rights(service: Service) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


def test_only_kafka_writes_to_its_own_image() -> None:
    writing = {name for name, service in COMPOSE["services"].items() if not service["read_only"]}
    assert writing == {"kafka"}


@every_service
def test_ports_are_published_on_loopback_only(service: Service) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@every_service
def test_what_others_wait_for_can_say_that_it_is_well(service: Service) -> None:
    for name, wait in service.get("depends_on", {}).items():
        other = COMPOSE["services"][name]
        if wait["condition"] == "service_healthy":
            assert "healthcheck" in other or ("HEALTHCHECK" in DOCKERFILE and other["build"]["target"] == "service")
        if wait["condition"] == "service_completed_successfully":
            assert other["restart"] == "no"


@every_service
def test_what_is_mounted_from_the_repository_is_there(service: Service) -> None:
    mounted = [volume.split(":")[0] for volume in service.get("volumes", [])]
    assert all((ROOT / source).is_dir() for source in mounted if source.startswith("."))
    assert all(source in COMPOSE["volumes"] for source in mounted if not source.startswith("."))


@every_service
def test_scripts_are_ones_that_the_shell_can_read(service: Service) -> None:
    if "entrypoint" in service:
        (script,) = service["command"]
        subprocess.run(["sh", "-n"], input=script.replace("$$", "$"), text=True, check=True)


def test_the_service_understands_its_environment() -> None:
    settings = load(None, COMPOSE["services"]["foreshock"]["environment"])
    assert settings.kafka.bootstrap_servers == "kafka:19092"
    assert f"127.0.0.1:{settings.http.port}:{settings.http.port}" in COMPOSE["services"]["foreshock"]["ports"]


def test_the_topics_are_created_that_the_service_reads_and_writes() -> None:
    created = re.findall(r"--topic (\S+)", COMPOSE["services"]["topics"]["command"][0])
    names = TopicSettings()
    assert set(created) == {names.readings, names.dead_letter, names.alerts}


def test_the_dockerfile_copies_what_is_there_and_not_ignored() -> None:
    let_through = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = [
        source
        for words in re.findall(r"^COPY ((?!--from).+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in words.split()
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert source.split("/")[0] in let_through


def pins(of: str) -> set[str]:
    return set(re.findall(r"^[\w.-]+==\S+.*$", (ROOT / "requirements" / f"{of}.txt").read_text(), re.MULTILINE))


def test_the_image_with_the_compiled_form_is_the_service_and_what_compiles_at_the_tested_releases() -> None:
    added = {pin.partition("==")[0] for pin in pins("fast") - pins("serve")}
    assert added == {"llvmlite", "numba"}
    assert pins("serve") < pins("fast") <= pins("dev")


def test_the_image_with_the_compiled_form_keeps_its_code_where_its_user_alone_may_write() -> None:
    (stage,) = re.findall(r"^FROM serving AS fast$(.+?)^FROM", DOCKERFILE, re.MULTILINE | re.DOTALL)
    environment = dict(re.findall(r"(\w+)=(\S+)", stage))
    assert load(None, {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", **environment}).kernel == "numba"
    made = f"install --directory --mode=0700 --owner=foreshock --group=foreshock {environment['NUMBA_CACHE_DIR']}"
    assert made in DOCKERFILE


def test_no_secret_is_shipped() -> None:
    for path in [ROOT / "docker-compose.yml", *DEPLOY.rglob("*")]:
        if path.is_file():
            assert not re.search(r"(password|secret|token)\s*[:=]\s*\S", path.read_text(), re.IGNORECASE), path


@pytest.mark.parametrize(
    "path", [DEPLOY / "prometheus" / "foreshock.rules.yml", *DASHBOARDS], ids=lambda path: path.name
)
def test_every_metric_that_is_named_is_exported(path: Path) -> None:
    from pipeline.telemetry import METRIC_NAMES

    named = set(re.findall(r"\bforeshock_\w+", path.read_text()))
    exported = {*METRIC_NAMES, *retrain_metrics()}
    assert named
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= exported


def test_the_rules_that_are_shipped_page_on_the_pipeline_and_ticket_what_it_found() -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "foreshock.rules.yml").read_text())["groups"]
    alerts = {group["name"]: [rule for rule in group["rules"] if "alert" in rule] for group in groups}
    severities = {name: {rule["labels"]["severity"] for rule in rules} for name, rules in alerts.items() if rules}
    assert severities == {"foreshock-pipeline": {"page"}, "foreshock-findings": {"ticket"}}
    for rule in (rule for rules in alerts.values() for rule in rules):
        assert rule["annotations"].keys() == {"summary", "action"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_asks_the_data_source_that_is_provisioned(path: Path) -> None:
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    asked = {target["datasource"]["uid"] for panel in panels for target in panel.get("targets", [])}
    assert asked == {source["uid"] for source in sources}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here; Debian: apt-get install prometheus")
@pytest.mark.parametrize("command", [["check", "config", "prometheus.yml"], ["test", "rules", "foreshock.test.yml"]])
def test_prometheus_accepts_the_rules_and_they_pass_their_own_tests(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def retrain_metrics() -> set[str]:
    """What the retraining job writes into its textfile."""
    sources = "\n".join(path.read_text() for path in (ROOT / "training").glob("*.py"))
    return set(re.findall(r"\bforeshock_retrain_\w+", sources))
