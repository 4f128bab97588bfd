"""Commands wrapped so that they run in a container, whichever engine the site has.

One rule for all engines: the command sees the image, read-only, the folders that were bound, and the environment that was
given; nothing of the user's own home, settings or Python packages.  What the engines cannot do alike is said at `command`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import RequestError
from .lock import user_name

ENGINES = ("none", "apptainer", "docker", "podman", "charliecloud")
DIGEST_VARIABLE = "PANACEA_NB_IMAGE_DIGEST"
# In an image unpacked to a folder (charliecloud) nothing else tells which image it was; containers/README.md writes it.
DIGEST_FILE = "etc/panacea_nb-digest"
MARKER_FILE = "etc/panacea_nb-image"
_PROGRAMS = {"apptainer": "apptainer", "docker": "docker", "podman": "podman", "charliecloud": "ch-run"}
_PATIENCE = 120.0  # s for an engine's answer; the first one after a reboot can be slow
_BLOCK = 1 << 20
_HOW_TO_BUILD = "containers/README.md says how to build or fetch one"


class ContainerError(RequestError):
    """The container that was asked for cannot be used as it was described."""


@dataclass(frozen=True)
class Container:
    """Where commands run.

    Parameters
    ----------
    engine : str
        One of `ENGINES`; ``none`` wraps nothing.
    image : str
        Name of the image (docker, podman), path of the .sif (apptainer), folder of the unpacked image (charliecloud).
        ``~`` and ``$VARIABLES`` in paths are those of the process that starts the command.
    binds : tuple of str
        ``HOST[:INSIDE[:ro]]``, each a folder or file of the host and its place inside (the same path by default).
    options : tuple of str
        Further words for the engine, put before the image as they are.

    Raises
    ------
    ContainerError
        If the engine is unknown, the image is missing or superfluous, or a bind is malformed.
    """

    engine: str = "none"
    image: str = ""
    binds: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ContainerError(f"container engine {self.engine!r} is none of {', '.join(ENGINES)}")
        if self.engine != "none" and not self.image:
            raise ContainerError(f"container engine {self.engine} needs an image; {_HOW_TO_BUILD}")
        if self.engine == "none" and (self.image or self.options):
            raise ContainerError("an image or options are given, but the container engine is none: name one")
        for bind in self.binds:
            _parts(bind)

    @property
    def path(self) -> Path:
        """Where the image lies, for the engines whose images are files or folders."""
        return Path(_expanded(self.image, "container image"))


@dataclass(frozen=True)
class _Bind:
    host: str
    inside: str
    read_only: bool

    @property
    def text(self) -> str:
        return f"{self.host}:{self.inside}{':ro' if self.read_only else ''}"


def command(
    container: Container,
    argv: Sequence[str],
    *,
    binds: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    workdir: str | None = None,
    network: bool = False,
) -> list[str]:
    """The words that run ``argv`` in a container.

    Parameters
    ----------
    container : Container
    argv : sequence of str
        Program (of the image) and its arguments.
    binds : sequence of str
        More than the container's own, in the same form; of two for the same place inside, the later counts.
        charliecloud binds everything writable, whatever they say.
    environment : mapping, optional
        All that the command gets beside the image's own environment; the image's digest is added.
    workdir : str, optional
        Folder inside in which it starts.  Engine ``none`` starts where the caller is.
    network : bool
        Share the host's network and processes (docker, podman), for workers whose driver runs outside: they reach it, and
        each can see whether the other lives.  Else these engines give no network at all; apptainer and charliecloud always
        share both with the host.

    Returns
    -------
    list of str
        Engine ``none``: ``argv`` itself, with ``env`` before it when there is an environment.

    Raises
    ------
    ContainerError
        If a bind is malformed, or the image's digest is asked of an engine that does not answer.
    """
    values = dict(environment or {})
    words = list(argv)
    if container.engine == "none":
        return ["env", *_pairs(values), *words] if values else words
    if DIGEST_VARIABLE not in values:
        known = digest(container)
        if known:
            values[DIGEST_VARIABLE] = known
    places = _binds([*container.binds, *binds])
    if container.engine == "apptainer":
        return _apptainer(container, words, places, values, workdir)
    if container.engine == "charliecloud":
        return _charliecloud(container, words, places, values, workdir)
    return _docker(container, words, places, values, workdir, network)


def digest(container: Container) -> str:
    """Which image this is, exactly: ``sha256:...``; empty where it cannot be known, and for engine ``none``.

    docker, podman: the image ID; apptainer: the sha256 of the .sif; charliecloud: what `DIGEST_FILE` in the image says.

    Raises
    ------
    ContainerError
        If there is no such image.
    """
    if container.engine == "none":
        return ""
    if container.engine in ("docker", "podman"):
        return _image_id(container.engine, container.image)
    if container.engine == "apptainer":
        try:
            stat = container.path.stat()
            return _file_digest(container.path, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise ContainerError(f"the image {container.path} cannot be read: {error.strerror}") from error
    try:
        text = (container.path / DIGEST_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    if text and not text.startswith("sha256:"):
        text = f"sha256:{text}"
    return text if re.fullmatch(r"sha256:[0-9a-f]{64}", text) else ""


def check(container: Container, binds: Sequence[str] = ()) -> None:
    """See that engine, image and bound folders are there.

    For charliecloud, which cannot do so itself, places of binds that the image does not have are made in its folder.

    Raises
    ------
    ContainerError
        If something is not there; the message says what to do.
    """
    if container.engine == "none":
        return
    program = _PROGRAMS[container.engine]
    if shutil.which(program) is None:
        hint = " (at TACC: module load tacc-apptainer, on a compute node)" if container.engine == "apptainer" else ""
        raise ContainerError(
            f"the container engine {container.engine} is not here: no program {program} in PATH; install it or load its "
            f"module{hint}, or choose another engine"
        )
    places = _binds([*container.binds, *binds])
    for bind in places:
        if not os.path.exists(bind.host):
            raise ContainerError(f"cannot bind {bind.host} into the container: it does not exist on this machine")
    if container.engine == "apptainer":
        if not container.path.exists():
            raise ContainerError(f"there is no image {container.path}; {_HOW_TO_BUILD}")
    elif container.engine == "charliecloud":
        if not (container.path / MARKER_FILE).is_file():
            raise ContainerError(f"{container.path} is not the folder of an unpacked panacea-nb image; {_HOW_TO_BUILD}")
        _make_places(container.path, places)
    else:
        _image_id(container.engine, container.image)


# --- engines ----------------------------------------------------------------------------------------------------------
def _apptainer(
    container: Container, argv: list[str], binds: list[_Bind], environment: dict[str, str], workdir: str | None
) -> list[str]:
    # By variables and not by --env, which splits its values at commas. The host's /tmp stays: the private one of
    # --contain holds 64 MB.
    words = ["env", *_pairs({f"APPTAINERENV_{name}": value for name, value in environment.items()})]
    words += ["apptainer", "exec", "--cleanenv", "--no-home"]
    for bind in binds:
        words += ["--bind", bind.text]
    if workdir:
        words += ["--pwd", workdir]
    return [*words, *container.options, str(container.path), *argv]


def _charliecloud(
    container: Container, argv: list[str], binds: list[_Bind], environment: dict[str, str], workdir: str | None
) -> list[str]:
    # The image's own environment lies in its /ch/environment. ch-run needs to know the user's name, which batch systems
    # and cron may not tell.
    words = ["env", f"USER={os.environ.get('USER') or user_name()}", "ch-run", "--unset-env=*", "--set-env"]
    words += [f"--set-env={pair}" for pair in _pairs(environment)]
    for bind in binds:
        words += ["--bind", f"{bind.host}:{bind.inside}"]
    if workdir:
        words += [f"--cd={workdir}"]
    return [*words, *container.options, str(container.path), "--", *argv]


def _docker(
    container: Container,
    argv: list[str],
    binds: list[_Bind],
    environment: dict[str, str],
    workdir: str | None,
    network: bool,
) -> list[str]:
    words = [container.engine, "run", "--rm", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
    words += ["--network=host", "--pid=host"] if network else ["--network=none"]
    words += [f"--user={os.getuid()}:{os.getgid()}"]
    if container.engine == "podman" and os.getuid() != 0:
        words += ["--userns=keep-id"]  # without root, podman's users are others than the host's
    if not any(bind.inside == "/tmp" for bind in binds):
        words += ["--tmpfs=/tmp"]
    for bind in binds:
        words += ["--volume", bind.text]
    for pair in _pairs(environment):
        words += ["--env", pair]
    if workdir:
        words += ["--workdir", workdir]
    return [*words, *container.options, f"--entrypoint={argv[0]}", container.image, *argv[1:]]


# --- parts ------------------------------------------------------------------------------------------------------------
def _pairs(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _expanded(text: str, what: str) -> str:
    full = os.path.expanduser(os.path.expandvars(text))
    if "$" in full:
        raise ContainerError(f"{what} {text!r} names a variable that is not set in the environment")
    return full


def _parts(bind: str) -> tuple[str, str, str]:
    host, _, rest = bind.partition(":")
    inside, _, mode = rest.partition(":")
    inside = inside or host
    if not host or mode not in ("", "ro", "rw") or not re.match(r"[/~$]", host) or not re.match(r"[/~$]", inside):
        raise ContainerError(f"bind {bind!r} is not HOST[:INSIDE[:ro]] with absolute paths")
    return host, inside, mode


def _binds(texts: Iterable[str]) -> list[_Bind]:
    places: dict[str, _Bind] = {}
    for text in texts:
        host, inside, mode = (_expanded(part, "bind") for part in _parts(text))
        places.pop(inside, None)
        places[inside] = _Bind(host, inside, mode == "ro")
    # Outer folders first, so that none hides what was bound below it.
    return sorted(places.values(), key=lambda bind: bind.inside.count("/"))


def _image_id(engine: str, image: str) -> str:
    asked = [engine, "image", "inspect", "--format", "{{.Id}}", image]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContainerError(f"{engine} does not answer: {error}") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-300:]
        raise ContainerError(f"{engine} has no image {image!r} or does not run ({said}); {_HOW_TO_BUILD}")
    text = done.stdout.strip()
    return text if text.startswith("sha256:") else f"sha256:{text}"


@lru_cache(maxsize=8)
def _file_digest(path: Path, size: int, mtime: int) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return f"sha256:{found.hexdigest()}"


def _make_places(image: Path, binds: list[_Bind]) -> None:
    """Make what is to be mounted on; the host's own /tmp is mounted by ch-run, so that nothing is needed below it."""
    for bind in binds:
        place = image / bind.inside.lstrip("/")
        if Path(bind.inside).is_relative_to("/tmp") or os.path.lexists(place):
            continue
        try:
            place.mkdir(parents=True)
        except OSError as error:
            raise ContainerError(
                f"the image {image} has no {bind.inside} to bind {bind.host} to, and it cannot be made there "
                f"({error.strerror}): make it, or bind to /mnt"
            ) from error
