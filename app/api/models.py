"""What may be sent: the bodies of docs/api.md §4 as pydantic models, strict and without room for unknown fields."""

import base64
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.api import reading

SLUG = r"^[a-z0-9][a-z0-9-]{0,62}$"
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORBIDDEN_ENVIRONMENT = re.compile(r"(LD_|DYLD_|BASH_ENV$|ENV$|IFS$|SHELLOPTS$|BASHOPTS$|PS4$|BASH_FUNC_|PATH$|PYTHONPATH$|PYTHONSTARTUP$|PERL5OPT$)")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?")
KEY_TYPES = {"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"}


def refuse(code: str, detail: str) -> PydanticCustomError:
    return PydanticCustomError(code, "{detail}", {"detail": detail})


def _without(pattern: str, code: str, detail: str) -> Callable[[str], str]:
    """Refuses a text in which the pattern is found."""
    bad = re.compile(pattern)

    def check(text: str) -> str:
        if bad.search(text):
            raise refuse(code, detail)
        return text

    return check


_BIDI = "\u202a-\u202e\u2066-\u2069\u200e\u200f"
_printable = _without(rf"[\x00-\x1f\x7f{_BIDI}]", "bad_format", "control and direction characters are not allowed")
_prose = _without(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f{_BIDI}]", "bad_format", "control and direction characters are not allowed")  # Has lines and tabs.
_one_line = _without(r"[\0\n\r]", "bad_format", "one line, without NUL")
_absolute = _without(r"\A(?!/)|(\A|/)\.\.(/|\Z)|[\x00-\x1f]", "unsafe_value", "an absolute path without .. is wanted")
_below = _without(r"\A/|(\A|/)\.\.(/|\Z)|[\x00-\x1f]", "unsafe_value", "a pattern below the work directory is wanted")
_plain = _without(r"\A\.{0,2}\Z|[/\x00-\x1f]", "unsafe_value", "a plain file name is wanted")


def _variable_name(name: str) -> str:
    if not _ENVIRONMENT_NAME.fullmatch(name):
        raise refuse("bad_format", f"{name[:64]!r} is no variable name")
    if _FORBIDDEN_ENVIRONMENT.match(name):
        raise refuse("not_allowed", f"{name[:64]} changes how programs are found or started")
    return name


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise refuse("bad_format", "a host name or address is wanted")
    return text


def _host_key(text: str) -> str:
    parts = text.split()
    if "PRIVATE" in text:
        raise refuse("not_allowed", "this looks like a private key: give the public line of ssh-keyscan")
    if len(parts) < 2 or parts[0] not in KEY_TYPES:
        raise refuse("not_allowed" if parts and parts[0] == "ssh-dss" else "bad_format", f"`<type> <base64>` with a type of {', '.join(sorted(KEY_TYPES))}")
    try:
        raw = base64.b64decode(parts[1], validate=True)
    except ValueError:
        raw = b""
    if raw[4 : 4 + len(parts[0])] != parts[0].encode():
        raise refuse("bad_format", "the base64 part is no such key")
    return f"{parts[0]} {parts[1]}"


def _time(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return reading.moment(value)
    except ValueError as fault:
        raise refuse("bad_format", f"{fault} is wanted") from None


Slug = Annotated[str, Field(pattern=SLUG, max_length=63)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Description = Annotated[str, Field(max_length=4096), AfterValidator(_prose)]
Command = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_one_line)]
Commands = Annotated[list[Command], Field(max_length=32)]
AbsolutePath = Annotated[str, Field(max_length=1024), AfterValidator(_absolute)]
FileName = Annotated[str, Field(max_length=255), AfterValidator(_plain)]
Glob = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_below)]
VariableName = Annotated[str, Field(max_length=255), AfterValidator(_variable_name)]
Environment = Annotated[dict[VariableName, Annotated[str, Field(max_length=4096), AfterValidator(_one_line)]], Field(max_length=64)]
Identifier = Annotated[str, Field(max_length=64)]
Time = Annotated[datetime, BeforeValidator(_time)]
Reason = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_printable)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]


NOT_ENFORCED = "Kept and shown; not enforced yet."


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Project(Model):
    name: Slug
    description: Description = ""


class GatewayLimits(Model):
    live_experiments: int | None = Field(default=None, ge=0, le=10_000_000)


class Gateway(Model):
    name: Slug
    display_name: Annotated[str, Field(max_length=200), AfterValidator(_printable)] = ""
    domain: Annotated[str, Field(max_length=253), AfterValidator(_printable)] = ""
    contact_email: Annotated[str, Field(max_length=254), AfterValidator(_printable)] = ""
    state: Literal["ACTIVE", "DEACTIVATED"] = "ACTIVE"
    default_storage_id: Identifier | None = None
    paused: bool = False
    limits: GatewayLimits = Field(default_factory=GatewayLimits)


class Token(Model):
    name: Slug
    user: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
    role: Literal["user", "gateway-admin", "operator", "service"] = "user"
    scopes: Annotated[list[str], Field(max_length=20)] | None = None
    expires_at: Time | None = None
    gateway_id: Identifier | None = None


class Module(Model):
    name: Slug
    display_name: Annotated[str, Field(max_length=200), AfterValidator(_printable)] = ""
    module_version: Annotated[str, Field(max_length=64), AfterValidator(_printable)] = ""
    description: Description = ""


class InputDeclaration(Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$", max_length=63)]
    type: Literal["STRING", "INTEGER", "FLOAT", "URI", "URI_COLLECTION"]
    order: int = Field(default=0, ge=0, le=1000)
    required: bool = False
    on_command_line: bool = False
    argument: Annotated[str, Field(max_length=255), AfterValidator(_one_line)] | None = None
    standard_input: bool = False
    staged: bool = True
    override_filename: FileName | None = None
    default: str | int | float | list[str] | None = None
    read_only: bool = False
    choices: Annotated[list[str | int | float], Field(max_length=100)] | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    max_length: int | None = Field(default=None, ge=1, le=65_536)
    description: Description = ""


class OutputDeclaration(Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$", max_length=63)]
    type: Literal["STRING", "INTEGER", "FLOAT", "URI", "URI_COLLECTION", "STDOUT", "STDERR"]
    required: bool = False
    on_command_line: bool = False
    argument: Annotated[str, Field(max_length=255), AfterValidator(_one_line)] | None = None
    search_glob: Glob | None = None


class Interface(Model):
    name: Slug
    display_name: Annotated[str, Field(max_length=200), AfterValidator(_printable)] = ""
    description: Description = ""
    module_ids: Annotated[list[Identifier], Field(max_length=32)] = Field(default_factory=list)
    planner: Annotated[str, Field(max_length=63)] = "batch-application"
    archive_working_directory: bool = False
    inputs: Annotated[list[InputDeclaration], Field(max_length=100)] = Field(default_factory=list)
    outputs: Annotated[list[OutputDeclaration], Field(max_length=100)] = Field(default_factory=list)

    @model_validator(mode="after")
    def names_are_unique(self) -> "Interface":
        for kind, names in (("inputs", [each.name for each in self.inputs]), ("outputs", [each.name for each in self.outputs])):
            if len(set(names)) != len(names):
                raise refuse("duplicate", f"two {kind} of one name")
        if sum(each.standard_input for each in self.inputs) > 1:
            raise refuse("conflicts_with", "two inputs on standard input")
        return self


class LibraryPaths(Model):
    prepend: Annotated[list[AbsolutePath], Field(max_length=32)] = Field(default_factory=list)
    append: Annotated[list[AbsolutePath], Field(max_length=32)] = Field(default_factory=list)


class DeploymentDefaults(Model):
    queue: Annotated[str, Field(max_length=64)] | None = None
    node_count: Count | None = None
    cpu_count: Count | None = None
    wall_time_seconds: Seconds | None = None


class Deployment(Model):
    module_id: Identifier
    compute_resource_id: Identifier
    executable_path: AbsolutePath
    parallelism: Literal["SERIAL", "MPI", "OPENMP", "OPENMP_MPI", "CCM", "CRAY_MPI"] = "SERIAL"
    module_load_commands: Commands = Field(default_factory=list)
    library_paths: LibraryPaths = Field(default_factory=LibraryPaths)
    environment: Environment = Field(default_factory=dict)
    pre_job_commands: Commands = Field(default_factory=list)
    post_job_commands: Commands = Field(default_factory=list)
    defaults: DeploymentDefaults = Field(default_factory=DeploymentDefaults)
    editable_by_user: bool = False


class QueueBody(Model):
    max_wall_time_seconds: Seconds | None = None
    max_nodes: Count | None = None
    max_cpus: Count | None = None
    max_jobs: Count | None = Field(default=None, description=NOT_ENFORCED)
    max_memory_mib: int | None = Field(default=None, ge=1, le=1 << 40)
    is_default: bool = False


class Queue(QueueBody):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", max_length=64)]


class JobManager(Model):
    type: Literal["FORK"] = "FORK"
    bin_path: AbsolutePath | None = None
    cluster: Annotated[str, Field(max_length=64)] | None = None
    submit_held: bool = True


class HostAccess(Model):
    credential_id: Identifier | None = None
    login: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.@-]{0,63}$", max_length=64)] | None = None
    allocation: Annotated[str, Field(max_length=64)] | None = None


class FileSystems(Model):
    HOME: AbsolutePath | None = None
    WORK: AbsolutePath | None = None
    LOCALTMP: AbsolutePath | None = None
    SCRATCH: AbsolutePath | None = None
    ARCHIVE: AbsolutePath | None = None


class HostLimits(Model):
    connections: int = Field(default=4, ge=1, le=100)
    connections_per_minute: int = Field(default=60, ge=1, le=10_000, description=NOT_ENFORCED)
    jobs: int = Field(default=1000, ge=1, le=1_000_000, description=NOT_ENFORCED)


class ComputeResource(Model):
    name: Slug
    host: Annotated[str, Field(max_length=253), AfterValidator(_host)]
    port: int = Field(default=22, ge=1, le=65_535)
    aliases: Annotated[list[Annotated[str, Field(max_length=253), AfterValidator(_host)]], Field(max_length=16)] = Field(default_factory=list)
    state: Literal["ENABLED", "DRAINING", "DISABLED"] | None = None
    host_keys: Annotated[list[Annotated[str, Field(max_length=8192), AfterValidator(_host_key)]], Field(max_length=8)] = Field(default_factory=list)
    job_manager: JobManager = Field(default_factory=JobManager)
    access: HostAccess = Field(default_factory=HostAccess)
    file_systems: FileSystems = Field(default_factory=FileSystems)
    queues: Annotated[list[Queue], Field(max_length=64)] = Field(default_factory=list)
    limits: HostLimits = Field(default_factory=HostLimits)

    @model_validator(mode="after")
    def queues_are_unique(self) -> "ComputeResource":
        names = [each.name for each in self.queues]
        if len(set(names)) != len(names):
            raise refuse("duplicate", "two queues of one name")
        return self


class StorageResource(Model):
    name: Slug
    kind: Literal["POSIX", "S3"]
    root: AbsolutePath | None = None
    endpoint: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]{1,253}$", max_length=262)] | None = None
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", max_length=63)] | None = None
    prefix: Annotated[str, Field(max_length=512), AfterValidator(_below)] = ""
    credential_id: Identifier | None = None

    @model_validator(mode="after")
    def kind_has_its_fields(self) -> "StorageResource":
        if self.kind == "POSIX" and not self.root:
            raise refuse("required", "a POSIX storage needs root")
        if self.kind == "S3" and not (self.endpoint and self.bucket):
            raise refuse("required", "an S3 storage needs endpoint and bucket")
        return self


class Credential(Model):
    name: Slug
    kind: Literal["SSH_KEY", "S3_KEY"] = "SSH_KEY"
    source: Literal["GENERATE", "IMPORT"] = "GENERATE"
    private_key: Annotated[str, Field(max_length=65_536)] | None = Field(default=None, repr=False)
    passphrase: Annotated[str, Field(max_length=1024)] | None = Field(default=None, repr=False)
    expires_at: Time | None = None


class Scheduling(Model):
    queue: Annotated[str, Field(max_length=64)] | None = None
    node_count: Count | None = None
    cpu_count: Count | None = None
    threads_per_process: Count | None = None
    memory_mib: Annotated[int, Field(ge=1, le=1 << 40)] | None = None
    wall_time_seconds: Seconds | None = None


def _labels(values: dict[str, str]) -> dict[str, str]:
    if len(values) > 32:
        raise refuse("too_many", "at most 32 labels")
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,62}", name) or len(value) > 128:
            raise refuse("bad_format", "a label is a name of 63 and a value of 128 characters")
        _printable(value)
    return values


class Experiment(Model):
    name: Name
    description: Description = ""
    project_id: Identifier | None = None
    application_interface_id: Identifier
    compute_resource_id: Identifier | None = None
    inputs: Annotated[dict[str, Any], Field(max_length=100)] = Field(default_factory=dict)
    scheduling: Scheduling = Field(default_factory=Scheduling)
    output_storage_id: Identifier | None = None
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = Field(default_factory=dict)
    cleanup_strategy: Literal["NONE", "ALWAYS", "ONLY_COMPLETED", "ONLY_FAILED"] = "NONE"
    deadline_at: Time | None = None
    launch: bool = False


class Empty(Model):
    pass


class Settlement(Model):
    reason: Reason
