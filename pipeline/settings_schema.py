"""Every setting there is: its type, default, meaning and an example; `pipeline.settings` reads them."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.core.tags import Tags
from pipeline.core.thresholds import Budget

SERVER = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:,/\[\]]+):\d{1,5}")


def _servers(value: str) -> str:
    for server in value.split(","):
        if not SERVER.fullmatch(server.strip()) or int(server.rpartition(":")[2]) > 65535:
            raise ValueError(f"{server.strip()!r} is not host:port")
    return value


def _start(value: object) -> object:
    if value in ("latest", "earliest"):
        return value
    try:
        stamp = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"{value!r:.80} is neither latest nor earliest nor an RFC 3339 time") from None
    return stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)


def _budget(value: str) -> str:
    Budget.parse(value)
    return value


def _tag(value: str) -> str:
    Tags(value)
    return value


Tag = Annotated[str, AfterValidator(_tag)]
Servers = Annotated[str, AfterValidator(_servers)]
Start = Annotated[Literal["latest", "earliest"] | datetime, BeforeValidator(_start)]
BudgetText = Annotated[str, AfterValidator(_budget)]
Topic = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Instance = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,199}$")]
CHECKED = SettingsConfigDict(
    frozen=True,
    extra="forbid",
    allow_inf_nan=False,
    validate_default=True,
    str_strip_whitespace=True,
    hide_input_in_errors=True,  # it may be a secret
)
Pattern = Annotated[str, StringConstraints(min_length=1)]


class _Section(BaseModel):
    model_config = CHECKED


class TopicSettings(_Section):
    """The names of the topics."""

    readings: Topic = Field(default="sensor.readings", description="Read from here.")
    alerts: Topic = Field(default="sensor.alerts", description="Alerts go here, keyed by sensor.")
    dead_letter: Topic = Field(
        default="sensor.readings.dead-letter", description="Refused messages go here, with the reason."
    )
    scores: Topic | None = Field(
        default=None, description="Every score goes here, if a name is given.", examples=["sensor.scores"]
    )

    checkpoints: Topic = Field(
        default="sensor.checkpoints",
        description="Checkpoints go here where `checkpoints.store` is `topic`: compacted, as many partitions as the "
        "readings.",
    )

    @field_validator("alerts", "dead_letter", "scores", "checkpoints")
    @classmethod
    def _not_what_is_read(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and value == info.data.get("readings"):
            raise ValueError("is the topic of the readings: what is written there would be read again")
        if value is not None and value in info.data.values():
            raise ValueError("is the topic of other messages: whoever reads them would take these for theirs")
        return value


class KafkaSettings(_Section):
    """The cluster, and how the consumer group reads it."""

    bootstrap_servers: Servers = Field(
        description="host:port of one or more brokers, with commas; `KAFKA_BOOTSTRAP_SERVERS` is understood as well.",
        examples=["localhost:9092"],
    )
    client: Literal["kafka-python", "librdkafka"] = Field(
        default="kafka-python",
        description="What reads and writes for the service: `kafka-python`, or `librdkafka`, which takes a fraction of "
        "the processor time and needs the extra `librdkafka`. Members of a group may differ in it.",
    )
    group_id: str = Field(
        default="foreshock", min_length=1, description="The consumer group; its members share the load."
    )
    instance_id: Instance | None = Field(
        default=None,
        description="This process's own name in the group, the same after a restart: a restart within "
        "`session_timeout_seconds` then moves no partition, and ends at once what the killed process left open. "
        "No two processes may have the same.",
        examples=["foreshock-0"],
    )
    start: Start = Field(
        default="latest",
        description="Where to start without a committed offset: `latest`, `earliest` or an RFC 3339 time; "
        "a time without an offset is UTC.",
        examples=["2026-11-22T12:00:00Z"],
    )
    topics: TopicSettings = TopicSettings()
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="How to speak to the brokers: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.",
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None,
        description="`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; with SASL only.",
        examples=["SCRAM-SHA-512"],
    )
    sasl_username: str | None = Field(default=None, description="With SASL only.", examples=["foreshock"])
    sasl_password: SecretStr | None = Field(default=None, description="With SASL only.")
    ssl_cafile: Path | None = Field(
        default=None,
        description="Certificates to trust, PEM; without it, the system's.",
        examples=["/etc/foreshock/ca.pem"],
    )
    ssl_certfile: Path | None = Field(
        default=None, description="The client's own certificate, PEM.", examples=["/etc/foreshock/client.pem"]
    )
    ssl_keyfile: Path | None = Field(
        default=None, description="The key of the client's certificate, PEM.", examples=["/etc/foreshock/client.key"]
    )
    ssl_keyfile_password: SecretStr | None = Field(default=None, description="Opens `ssl_keyfile`, if it is locked.")
    ssl_check_hostname: bool = Field(
        default=True, description="Whether a broker's certificate must carry its host name."
    )
    max_poll_records: PositiveInt = Field(
        default=5000,
        description="Messages in one turn at most; of large ones, such as batches of readings, a turn takes about a "
        "megabyte.",
    )
    poll_wait_seconds: PositiveFloat = Field(default=0.5, description="How long a poll waits for the first message.")
    commit_seconds: float = Field(
        default=1.0,
        ge=0.1,
        le=60.0,
        description="Between two commits, each one transaction of alerts, dead letters, scores and offsets; an alert "
        "that opens or resolves does not wait for it.",
    )
    max_poll_interval_seconds: PositiveFloat = Field(
        default=300.0, description="A member that polls more rarely than this is put out of the group."
    )
    session_timeout_seconds: PositiveFloat = Field(
        default=45.0, description="A member that is silent for longer is put out of the group."
    )
    heartbeat_seconds: PositiveFloat = Field(
        default=3.0, description="Between two signs of life; at most a third of `session_timeout_seconds`."
    )

    @field_validator("sasl_mechanism", "sasl_username", "sasl_password")
    @classmethod
    def _goes_with_sasl(cls, value: object, info: ValidationInfo) -> object:
        protocol = info.data.get("security_protocol")
        if protocol in ("SASL_PLAINTEXT", "SASL_SSL") and not value:
            raise ValueError(f"is not set, and kafka.security_protocol is {protocol}")
        if protocol in ("PLAINTEXT", "SSL") and value:
            raise ValueError(f"is set, but kafka.security_protocol is {protocol}, which signs nobody in")
        return value

    @field_validator("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_keyfile_password")
    @classmethod
    def _goes_with_ssl(cls, value: object, info: ValidationInfo) -> object:
        protocol = info.data.get("security_protocol")
        if protocol in ("PLAINTEXT", "SASL_PLAINTEXT") and value:
            raise ValueError(f"is set, but kafka.security_protocol is {protocol}, which encrypts nothing")
        return value

    @field_validator("heartbeat_seconds")
    @classmethod
    def _often_enough(cls, value: float, info: ValidationInfo) -> float:
        session = info.data.get("session_timeout_seconds")
        if session is not None and value > session / 3:
            raise ValueError(f"is more than a third of kafka.session_timeout_seconds ({session:g})")
        return value


class ModelSettings(_Section):
    """The model bundles."""

    dir: Path = Field(
        default=Path("models"), description="The folder of the bundles: `GROUP/VERSION/` and `GROUP/serving`."
    )
    groups: dict[str, Pattern] = Field(
        default_factory=dict,
        description="Sensors of a group by pattern, as in a shell; without one, a sensor's channels choose the group.",
        examples=[{"pumps": "plant1/pump-*"}],
    )
    join: bool = Field(
        default=False,
        description="Whether readings that name a part of their group's channels are joined, one reading a sampling "
        "interval.",
    )
    tag: Tag | None = Field(
        default=None,
        description="Names of sensors that are one channel of another: a regular expression with the groups `sensor` "
        "and `channel`. Their readings are joined.",
        examples=["(?P<sensor>.+)/(?P<channel>temperature|vibration)"],
    )


class DetectionSettings(_Section):
    """What can change an alert; every checkpoint carries the hash of it."""

    budget: BudgetText = Field(
        default="1/10000/sensor",
        description="False alarms that are bearable: a number, per `hour`, `day`, `week`, `month` or so many readings, "
        "of each `sensor` or of the whole `fleet`.",
        examples=["20/day/fleet"],
    )
    max_future_seconds: PositiveFloat = Field(
        default=60.0, description="A reading whose time is further ahead of its Kafka record's is refused."
    )
    catchup_after_seconds: PositiveFloat = Field(
        default=300.0, description="Alerts on readings older than this carry `mode: catchup`."
    )
    reorder: int = Field(
        default=0,
        ge=0,
        le=8,
        description="Readings that may overtake one of their sensor and still find it put back in order: each waits "
        "for so many later ones, and so does every alert. 0: a reading that was overtaken is only counted. A change "
        "may drop what waits.",
    )
    bridge: int = Field(
        default=4,
        ge=0,
        le=64,
        description="Missing readings in a row, at most, that the forecast stands in for, where a sensor keeps its "
        "interval; after more of them its window restarts. 0: readings are taken as they come.",
    )
    stuck: bool = Field(default=True, description="Whether a value that no longer moves raises an alert.")
    gap: bool = Field(default=True, description="Whether a sensor that falls silent raises an alert.")
    clock: bool = Field(default=True, description="Whether a sensor whose clock is wrong raises an alert.")
    limit: bool = Field(default=True, description="Whether a crossed physical limit raises an alert.")
    max_sensors_per_partition: PositiveInt = Field(
        default=100_000,
        description="Of a group, in one partition; a sensor beyond evicts the one that was not seen for longest. "
        "`foreshock doctor --sensors N` says what memory they take.",
    )
    input_silent_share: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="More than this share of a partition's sensors silent together is one `input-silent` alert instead "
        "of a `gap` for each; with 1, each has its own.",
    )


class CheckpointSettings(_Section):
    """What a restart continues from."""

    store: Literal["folder", "topic"] = Field(
        default="folder",
        description="`folder`: on a disk that all members share; `topic`: in `kafka.topics.checkpoints`, the newest "
        "only.",
    )
    dir: Path = Field(
        default=Path("checkpoints"),
        description="The folder of the checkpoints; it has to outlive the process, and all members share it.",
    )
    every_seconds: PositiveFloat = Field(default=60.0, description="Between two checkpoints of a partition.")
    keep_days: int = Field(
        default=3,
        ge=0,
        le=3650,
        description="Of so many days the first checkpoint of each is kept, and the first after a change of models or "
        "settings, beside the two newest: a span can be replayed from them.",
    )


class HttpSettings(_Section):
    """`/metrics`, `/healthz` and `/readyz`."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="The address to listen on; `0.0.0.0` is all of them."
    )
    port: int = Field(default=9108, ge=0, le=65535, description="The port to listen on; 0 picks a free one.")


class LoggingSettings(_Section):
    """What the service says on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important event that is logged: `debug`, `info`, `warning` or `error`."
    )
    format: Literal["json", "console"] = Field(default="json", description="`json` for machines, `console` for people.")


class Settings(BaseSettings):
    """All settings of the service; `pipeline.settings.load` reads them, the class itself reads nothing."""

    model_config = CHECKED

    sensors_csv: Path | None = Field(
        default=None, description="Unit, limits and interval of each sensor, CSV.", examples=["sensors.csv"]
    )
    secrets_dir: Path | None = Field(
        default=None,
        description="A folder with one file a secret, named like `kafka__sasl_password`.",
        examples=["/run/secrets/foreshock"],
    )
    kernel: Literal["numpy", "numba"] = Field(
        default="numpy",
        description="What computes the scores, the same but for their last digits. `numba` needs the extra `fast`, "
        "pays most for thin batches and catch-up, and compiles for half a minute before it serves for the first time.",
    )
    kafka: KafkaSettings
    model: ModelSettings = ModelSettings()
    detection: DetectionSettings = DetectionSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    http: HttpSettings = HttpSettings()
    logging: LoggingSettings = LoggingSettings()

    @classmethod
    def settings_customise_sources(  # noqa: D102 - the library's name and signature
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # what is passed in; nothing is read behind the caller's back

    def fingerprint(self) -> str:
        """SHA-256 of the settings that can change an alert, `sensors.csv` apart."""
        detection = self.detection.model_dump(mode="json", exclude={"catchup_after_seconds"})  # that is only a label
        deciding: dict[str, object] = {"detection": detection, "groups": self.model.groups}
        deciding |= self.model.model_dump(include={"join", "tag"}, exclude_defaults=True)
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
