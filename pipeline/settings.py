"""Settings are read once, from foreshock.toml, a folder of secrets and the environment; the later of these wins."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, NestedSecretsSettingsSource, SecretsSettingsSource
from pydantic_settings import SettingsError as SourceError

from pipeline.settings_schema import Settings

__all__ = ["Entry", "Settings", "SettingsError", "catalogue", "load", "sections"]

PREFIX = "FORESHOCK_"
PLAIN_SERVERS = "KAFKA_BOOTSTRAP_SERVERS"  # what other Kafka programs read
SERVERS = f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS"
ALIKE = 0.8  # how near a misspelt name has to be, of 1

Tree = dict[str, Any]  # what TOML and the environment hold before it is checked


class SettingsError(ValueError):
    """Settings that cannot be used: every problem, each as a name, what is wrong, what to do and an example."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        few = "1 setting is" if len(self.problems) == 1 else f"{len(self.problems)} settings are"
        super().__init__("\n".join([f"{few} wrong:", *(f"  {problem}" for problem in self.problems)]))


class Entry(NamedTuple):
    """One setting as the reference and the error messages name it."""

    name: str  # as in foreshock.toml, with its section
    field: FieldInfo

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return _variable(self.name)

    @property
    def secret(self) -> bool:
        """Whether it must not stand in foreshock.toml."""
        return SecretStr in (self.field.annotation, *getattr(self.field.annotation, "__args__", ()))

    @property
    def default(self) -> object:
        """What holds where nothing is set."""
        return self.field.get_default(call_default_factory=True, validated_data={})

    @property
    def example(self) -> object:
        """A value to show; a secret has none."""
        return self.field.examples[0] if self.field.examples else self.default


def sections(model: type[BaseModel] = Settings, name: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section by its name in foreshock.toml, the top level as "" first."""
    yield name, model
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation, f"{name}.{key}".lstrip("."))


def entries(section: str, model: type[BaseModel]) -> Iterator[Entry]:
    """The settings of one section, without those of the sections in it."""
    inner = dict(sections(model))
    for key, field in model.model_fields.items():
        if key not in inner:
            yield Entry(f"{section}.{key}".lstrip("."), field)


def catalogue() -> dict[str, Entry]:
    """Every setting by its name."""
    return {entry.name: entry for section, model in sections() for entry in entries(section, model)}


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check all settings; SettingsError names everything that is wrong at once, and shows no secret."""
    known = catalogue()
    problems: list[str] = []
    file = _file(path, known, problems)
    variables = _variables(environ, known, problems)
    folder = variables.get("secrets_dir", file.get("secrets_dir"))
    secrets = _secrets(folder, known, problems)
    try:
        settings = Settings(**_overlaid(_overlaid(file, secrets), variables))
    except ValidationError as error:
        places = {"in the environment": variables, f"in {folder}": secrets, f"in {path}": file}
        problems += [_problem(detail, known, places) for detail in error.errors(include_url=False)]
    if problems:
        raise SettingsError(problems)
    return settings


def _file(path: Path | None, known: Mapping[str, Entry], problems: list[str]) -> Tree:
    if path is None:
        return {}
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{path}: cannot be read, {error}; repair it; example: foreshock.example.toml")
        return {}
    for entry in known.values():
        if entry.secret and _has(tree, entry.name.split(".")):
            advice = f"take it out and set {entry.variable}, or keep it in a file of its own in secrets_dir"
            problems.append(f"{entry.name}: is a secret, which has no place in {path}; {advice}; {_example(entry)}")
    return tree


class _Variables(EnvSettingsSource):
    """The library's reading of nested variables, on a mapping that is passed in."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(Settings, env_prefix=PREFIX, env_nested_delimiter="__")
        self.env_vars = {name.lower(): value for name, value in environ.items()}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """As text where it is not JSON, so that the check names it together with all other problems."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def _variables(environ: Mapping[str, str], known: Mapping[str, Entry], problems: list[str]) -> Tree:
    own = {name.upper(): value for name, value in environ.items() if name.upper().startswith(PREFIX) and value}
    names = {_variable(name): entry for name, entry in known.items()}
    names |= {_variable(name): _first_of(name, known) for name, _ in sections() if name}  # a whole section as JSON
    services = [name.removesuffix("SERVICE_HOST") for name in own if name.endswith("_SERVICE_HOST")]
    kubernetes = tuple(service + word for service in services for word in ("SERVICE_", "PORT"))
    for name in list(own):
        if name in names or name.startswith(f"{_variable('model.groups')}__"):
            continue
        del own[name]
        alike = difflib.get_close_matches(name, names, 1, ALIKE)
        if name.startswith(kubernetes):
            continue  # it announces a service of this name to every container: nobody's mistake
        if alike:
            example = _example(names[alike[0]])
            problems.append(f"{name}: is not a setting, did you mean {alike[0]}?; correct its name; {example}")
        elif "__" in name:
            problems.append(f"{name}: is not a setting, see docs/configuration.md; unset it")
    if environ.get(PLAIN_SERVERS):
        own.setdefault(SERVERS, environ[PLAIN_SERVERS])
    return _Variables(own)()


def _secrets(folder: object, known: Mapping[str, Entry], problems: list[str]) -> Tree:
    if not isinstance(folder, str) or not folder:
        return {}
    try:
        source = NestedSecretsSettingsSource(
            SecretsSettingsSource(Settings),
            secrets_dir=folder,
            secrets_dir_missing="error",
            secrets_prefix="",
            secrets_nested_delimiter="__",
        )
        return source()
    except (SourceError, OSError, UnicodeDecodeError) as error:
        problems.append(
            f"secrets_dir: cannot be read, {error}; name a folder of files; {_example(known['secrets_dir'])}"
        )
        return {}


def _problem(detail: ErrorDetails, known: Mapping[str, Entry], places: Mapping[str, Tree]) -> str:
    keys = [str(key) for key in detail["loc"]]
    name = ".".join(keys)
    where = next((place for place, tree in places.items() if _has(tree, keys)), None)
    if detail["type"] == "extra_forbidden":
        alike = difflib.get_close_matches(name, known, 1, ALIKE)
        if not alike:
            return f"{name}: is not a setting, see docs/configuration.md; take it out {where}"
        example = _example(known[alike[0]])
        return f"{name}: is not a setting, did you mean {alike[0]}?; correct it {where}; {example}"
    above = [".".join(keys[:length]) for length in range(len(keys), 0, -1)]  # the field of an entry in a table
    entry = next((known[each] for each in above if each in known), None) or _first_of(name, known)
    if detail["type"] == "missing":
        name, what = entry.name, "is not set"
    else:
        what = detail["msg"].removeprefix("Value error, ")
        what = what[:1].lower() + what[1:]
        if entry.name == name and not entry.secret and detail["type"] != "value_error":
            what = f"{what}, not {detail['input']!r:.80}"
    if entry.secret:
        advice = f"set {entry.variable}, or keep it in a file of its own in secrets_dir"
    else:
        advice = f"correct it {where}" if where else f"set it in foreshock.toml or as {entry.variable}"
    return f"{name}: {what}; {advice}; {_example(entry)}"


def _first_of(section: str, known: Mapping[str, Entry]) -> Entry:
    return next(entry for name, entry in known.items() if name.startswith(f"{section}."))


def _example(entry: Entry) -> str:
    example = entry.name.replace(".", "__") if entry.secret else entry.example  # a secret's is its file
    return f"example: {json.dumps(example) if isinstance(example, dict) else example}"


def _variable(name: str) -> str:
    return PREFIX + name.upper().replace(".", "__")


def _has(tree: Mapping[str, Any], keys: Iterable[str]) -> bool:
    node: Any = tree
    for key in keys:
        if not isinstance(node, Mapping) or key not in node:
            return False
        node = node[key]
    return True


def _overlaid(below: Tree, above: Tree) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _overlaid(merged[key], value) if both else value
    return merged
