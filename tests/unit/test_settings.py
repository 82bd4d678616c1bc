"""Settings come from three places, are checked all at once, and keep their secrets."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config_reference import example, reference
from pipeline.settings import Settings, SettingsError, catalogue, load
from pipeline.settings_schema import KafkaSettings

ROOT = Path(__file__).parents[2]
SERVERS = {"FORESHOCK_KAFKA__BOOTSTRAP_SERVERS": "localhost:9092"}
SASL = {
    "FORESHOCK_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
    "FORESHOCK_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
    "FORESHOCK_KAFKA__SASL_USERNAME": "foreshock",
    "FORESHOCK_KAFKA__SASL_PASSWORD": "hunter2",
}


def toml(folder: Path, text: str) -> Path:
    path = folder / "foreshock.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path | None, environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    return list(caught.value.problems)


def test_the_brokers_are_all_that_has_to_be_said() -> None:
    settings = load(None, SERVERS)
    assert settings.kafka.bootstrap_servers == "localhost:9092"
    assert settings.kafka.topics.readings == "sensor.readings"
    assert settings.http.host == "127.0.0.1"


def test_without_brokers_the_error_says_what_to_set() -> None:
    assert problems(None, {}) == [
        "kafka.bootstrap_servers: is not set; set it in foreshock.toml or as FORESHOCK_KAFKA__BOOTSTRAP_SERVERS; "
        "example: localhost:9092"
    ]


def test_the_environment_wins_over_the_file_field_by_field(tmp_path: Path) -> None:
    path = toml(tmp_path, '[kafka]\nbootstrap_servers = "file:1"\ngroup_id = "file"\n[http]\nport = 1')
    settings = load(path, {"FORESHOCK_KAFKA__BOOTSTRAP_SERVERS": "environ:2", "FORESHOCK_HTTP__PORT": ""})
    assert (settings.kafka.bootstrap_servers, settings.kafka.group_id, settings.http.port) == ("environ:2", "file", 1)


def test_the_variable_of_other_kafka_programs_is_understood(tmp_path: Path) -> None:
    path = toml(tmp_path, '[kafka]\nbootstrap_servers = "file:1"')
    plain = {"KAFKA_BOOTSTRAP_SERVERS": "plain:2"}
    assert load(path, plain).kafka.bootstrap_servers == "plain:2"
    assert load(path, plain | SERVERS).kafka.bootstrap_servers == "localhost:9092"


def test_nothing_is_read_behind_the_callers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESHOCK_HTTP__PORT", "1")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "real:1")
    assert load(None, SERVERS).http.port == 9108
    assert Settings(kafka=KafkaSettings(bootstrap_servers="a:1")).http.port == 9108


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        """
        sensor_csv = "sensors.csv"
        [kafka]
        max_poll_records = "many"
        session_timeout_seconds = 6
        topics.alerts = "sensor.readings"
        [detection]
        budgte = "1/day/sensor"
        budget = "seldom"
        max_future_seconds = inf
        [model.groups]
        "odd.name" = ""
        """,
    )
    environ = {"FORESHOCK_HTTP__PORT": "70000", "FORESHOCK_KAKFA__START": "latest", "FORESHOCK_KAFKA__START": "soon"}
    found = {problem.partition(":")[0]: problem for problem in problems(path, environ)}
    assert found.keys() == {
        "FORESHOCK_KAKFA__START",
        "sensor_csv",
        "kafka.bootstrap_servers",
        "kafka.heartbeat_seconds",
        "kafka.max_poll_records",
        "kafka.start",
        "kafka.topics.alerts",
        "detection.budgte",
        "detection.budget",
        "detection.max_future_seconds",
        "model.groups.odd.name",
        "http.port",
    }
    assert "did you mean FORESHOCK_KAFKA__START?" in found["FORESHOCK_KAKFA__START"]
    assert "did you mean detection.budget?" in found["detection.budgte"]
    assert f"correct it in {path}" in found["kafka.max_poll_records"]
    assert "not '70000'; correct it in the environment; example: 9108" in found["http.port"]
    assert all(re.fullmatch(r".+: .+; .+; example: .+", problem) for problem in found.values())


@pytest.mark.parametrize(
    "text",
    ["[kafka", 'a = "\\x"', '"odd.name" = 1', "[kafka]\nbootstrap_servers = [1]", "kafka = 3", "secrets_dir = 3"],
)
def test_a_file_of_any_shape_gives_problems_and_no_traceback(tmp_path: Path, text: str) -> None:
    assert problems(toml(tmp_path, text), {})


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    assert "No such file" in problems(tmp_path / "absent.toml", SERVERS)[0]


def test_what_kubernetes_announces_is_no_mistake_but_a_near_miss_is() -> None:
    announced = {
        "FORESHOCK_SERVICE_HOST": "10.0.0.1",
        "FORESHOCK_SERVICE_PORT_HTTP": "9108",
        "FORESHOCK_PORT": "tcp://10.0.0.1:9108",
        "FORESHOCK_PORT_9108_TCP_ADDR": "10.0.0.1",
        "FORESHOCK_HTTP_SERVICE_HOST": "10.0.0.2",
        "FORESHOCK_HTTP_PORT": "tcp://10.0.0.2:9108",
    }
    assert load(None, SERVERS | announced).http.port == 9108
    assert "did you mean FORESHOCK_HTTP__PORT?" in problems(None, SERVERS | {"FORESHOCK_HTTP_PORT": "1"})[0]


def test_groups_are_a_table_a_variable_each_or_json(tmp_path: Path) -> None:
    path = toml(tmp_path, '[model.groups]\nPumps = "plant1/pump-*"')
    assert load(path, SERVERS).model.groups == {"Pumps": "plant1/pump-*"}
    assert load(None, SERVERS | {"FORESHOCK_MODEL__GROUPS__PUMPS": "p*"}).model.groups == {"pumps": "p*"}
    assert load(None, SERVERS | {"FORESHOCK_MODEL__GROUPS": '{"Pumps":"p*"}'}).model.groups == {"Pumps": "p*"}
    assert "model.groups" in problems(None, SERVERS | {"FORESHOCK_MODEL__GROUPS": "p*"})[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", "latest"),
        ("2026-11-22T12:00:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("2026-11-22T13:00:00+01:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
    ],
)
def test_the_start_is_a_word_or_a_time(text: str, expected: object) -> None:
    assert load(None, SERVERS | {"FORESHOCK_KAFKA__START": text}).kafka.start == expected


@pytest.mark.parametrize("servers", ["localhost", "localhost:", "http://localhost:9092", "a:1,", "a:1 b:2"])
def test_brokers_without_a_port_are_refused(servers: str) -> None:
    assert "is not host:port" in problems(None, {"KAFKA_BOOTSTRAP_SERVERS": servers})[0]


@pytest.mark.parametrize("servers", ["a:1,b:2", "a:1, b:2", "[::1]:9092", "broker-0.kafka.svc:9092"])
def test_brokers_with_ports_are_taken(servers: str) -> None:
    assert load(None, {"KAFKA_BOOTSTRAP_SERVERS": servers}).kafka.bootstrap_servers == servers


def test_sasl_asks_for_all_it_needs_at_once() -> None:
    found = problems(None, SERVERS | {"FORESHOCK_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"})
    assert [problem.partition(":")[0] for problem in found] == [
        "kafka.sasl_mechanism",
        "kafka.sasl_username",
        "kafka.sasl_password",
    ]


def test_credentials_and_certificates_that_would_not_be_used_are_refused() -> None:
    unused = SASL | {"FORESHOCK_KAFKA__SECURITY_PROTOCOL": "PLAINTEXT", "FORESHOCK_KAFKA__SSL_CAFILE": "ca.pem"}
    found = problems(None, SERVERS | unused)
    assert [("signs nobody in" in problem, "encrypts nothing" in problem) for problem in found] == [
        (True, False),
        (True, False),
        (True, False),
        (False, True),
    ]


def test_a_member_has_to_give_signs_of_life_often_enough() -> None:
    assert "a third" in problems(None, SERVERS | {"FORESHOCK_KAFKA__SESSION_TIMEOUT_SECONDS": "6"})[0]


def test_a_secret_is_shown_nowhere() -> None:
    settings = load(None, SERVERS | SASL)
    assert settings.kafka.sasl_password is not None
    assert settings.kafka.sasl_password.get_secret_value() == "hunter2"
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "hunter2" not in shown


def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = toml(tmp_path, '[kafka]\nsasl_password = "hunter2"\nsasl_pasword = "hunter2"')
    found = "\n".join(
        problems(path, SERVERS | {"FORESHOCK_KAFKA": "hunter2", "FORESHOCK_KAFKA__SASL_PASWORT": "hunter2"})
    )
    assert f"is a secret, which has no place in {path}" in found
    assert "hunter2" not in found


def test_a_secret_comes_from_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "kafka__sasl_password").write_text("from a file\n")
    (tmp_path / "unrelated").write_text("ignored")
    environ = SERVERS | SASL | {"FORESHOCK_SECRETS_DIR": str(tmp_path)}
    del environ["FORESHOCK_KAFKA__SASL_PASSWORD"]
    password = load(None, environ).kafka.sasl_password
    assert password is not None
    assert password.get_secret_value() == "from a file"


def test_a_folder_of_secrets_that_is_not_there_is_a_problem() -> None:
    assert "does not exist" in problems(None, SERVERS | {"FORESHOCK_SECRETS_DIR": "/nowhere/at/all"})[0]


def test_settings_do_not_change() -> None:
    settings = load(None, SERVERS)
    with pytest.raises(ValidationError, match="frozen"):
        settings.http.port = 1


def test_the_fingerprint_follows_what_can_change_an_alert_and_nothing_else() -> None:
    same = [{}, {"FORESHOCK_HTTP__PORT": "1"}, {"FORESHOCK_KAFKA__GROUP_ID": "x"}, {"FORESHOCK_DETECTION__GAP": "true"}]
    other = [
        {"FORESHOCK_DETECTION__BUDGET": "1/day/sensor"},
        {"FORESHOCK_DETECTION__STUCK": "false"},
        {"FORESHOCK_MODEL__GROUPS__PUMPS": "p*"},
    ]
    assert len({load(None, SERVERS | environ).fingerprint() for environ in same}) == 1
    assert len({load(None, SERVERS | environ).fingerprint() for environ in [{}, *other]}) == 4


def test_every_setting_says_what_it_means() -> None:
    for entry in catalogue().values():
        assert (entry.field.description or "").endswith("."), entry.name
        assert entry.secret or entry.example is not None, entry.name


def test_the_reference_is_the_one_that_is_generated() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == reference()


def test_the_example_is_the_one_that_is_generated_and_loads() -> None:
    path = ROOT / "foreshock.example.toml"
    assert path.read_text(encoding="utf-8") == example()
    assert load(path, {}) == load(None, SERVERS)


def test_every_line_of_the_example_can_be_uncommented(tmp_path: Path) -> None:
    whole = re.sub(r"^#(?=\w)", "", example(), flags=re.MULTILINE)
    kafka = tomllib.loads(whole)["kafka"]
    assert kafka.keys() | {"sasl_password", "ssl_keyfile_password"} == KafkaSettings.model_fields.keys()
    settings = load(toml(tmp_path, whole), SASL | {"FORESHOCK_SECRETS_DIR": str(tmp_path)})
    assert settings.model.groups == {"pumps": "plant1/pump-*"}
