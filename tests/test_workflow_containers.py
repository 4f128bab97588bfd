"""Commands wrapped for the container engines: words, binds, digests, errors. The engines themselves: tests/hpc."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from panacea_nb.errors import RequestError
from panacea_nb.workflow import containers
from panacea_nb.workflow.containers import Container, ContainerError, check, command, digest

HEX = "0123456789abcdef" * 4


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell script of a given name first in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return make


@pytest.fixture
def sif(tmp_path):
    path = tmp_path / "x.sif"
    path.write_bytes(b"an image")
    return path


@pytest.fixture
def folder(tmp_path):
    image = tmp_path / "image"
    (image / "etc").mkdir(parents=True)
    (image / containers.MARKER_FILE).write_text("{}")
    return image


def test_none_wraps_nothing():
    assert command(Container(), ["python", "-c", "1"]) == ["python", "-c", "1"]
    assert digest(Container()) == ""
    check(Container())


def test_none_sets_the_environment_all_the_same():
    words = command(Container(), ["sh", "-c", "printf '%s' \"$A\""], environment={"A": "b, c"})
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "b, c"


def test_apptainer(sif):
    container = Container("apptainer", str(sif), ("/data:/raw:ro",), ("--nv",))
    words = command(container, ["python", "-V"], binds=["/out"], environment={"A": "1,2"}, workdir="/out")
    known = f"sha256:{hashlib.sha256(b'an image').hexdigest()}"
    assert words == [
        *("env", "APPTAINERENV_A=1,2", f"APPTAINERENV_PANACEA_NB_IMAGE_DIGEST={known}"),
        *("apptainer", "exec", "--cleanenv", "--no-home", "--bind", "/data:/raw:ro", "--bind", "/out:/out"),
        *("--pwd", "/out", "--nv", str(sif), "python", "-V"),
    ]


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_docker_and_podman(engine, program, monkeypatch):
    program(engine, f"echo sha256:{HEX}")
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 99)
    words = command(Container(engine, "panacea-nb"), ["python", "-V"], binds=["/out"], environment={"A": "x y"})
    assert words[:6] == [engine, "run", "--rm", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
    assert words[-3:] == ["--entrypoint=python", "panacea-nb", "-V"]
    assert "--network=none" in words
    assert "--pid=host" not in words
    assert "--user=1234:99" in words
    assert ("--userns=keep-id" in words) == (engine == "podman")
    assert "--tmpfs=/tmp" in words
    assert words[words.index("--volume") + 1] == "/out:/out"
    assert words[words.index("--env") + 1] == "A=x y"
    assert f"PANACEA_NB_IMAGE_DIGEST=sha256:{HEX}" in words
    assert "/out" not in words  # no working folder was asked for


def test_workers_share_network_and_processes_with_their_driver(program):
    program("podman", f"echo {HEX}")
    words = command(Container("podman", "panacea-nb"), ["python"], binds=["/tmp"], network=True)
    assert {"--network=host", "--pid=host"} <= set(words)
    assert "--tmpfs=/tmp" not in words  # the host's own was bound


def test_charliecloud(folder, monkeypatch):
    monkeypatch.setenv("USER", "lara")
    words = command(Container("charliecloud", str(folder)), ["python"], binds=["/out:/mnt:ro"], environment={"A": "b"})
    # No digest is known of this folder, and none is made up.
    assert words == [
        *("env", "USER=lara", "ch-run", "--unset-env=*", "--set-env", "--set-env=A=b", "--bind", "/out:/mnt"),
        *(str(folder), "--", "python"),
    ]
    (folder / containers.DIGEST_FILE).write_text(f"{HEX}\n")
    words = command(Container("charliecloud", str(folder)), ["python"])
    assert f"--set-env=PANACEA_NB_IMAGE_DIGEST=sha256:{HEX}" in words


def test_a_user_without_a_name(folder, monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("USER", raising=False)
    monkeypatch.setattr("getpass.getuser", nameless)
    assert f"USER=uid-{os.getuid()}" in command(Container("charliecloud", str(folder)), ["python"])


def test_a_digest_that_was_told_is_not_asked_for_again(program):
    program("docker", "exit 1")
    words = command(Container("docker", "x"), ["true"], environment={containers.DIGEST_VARIABLE: "sha256:told"})
    assert "PANACEA_NB_IMAGE_DIGEST=sha256:told" in words


def test_digest_of_a_sif_follows_the_file(sif):
    container = Container("apptainer", str(sif))
    first = digest(container)
    sif.write_bytes(b"another image")
    assert digest(container) == f"sha256:{hashlib.sha256(b'another image').hexdigest()}" != first


@pytest.mark.parametrize("text", ["", "latest", "sha256:12", HEX.upper()])
def test_what_is_no_digest_is_none(folder, text):
    (folder / containers.DIGEST_FILE).write_text(text)
    assert digest(Container("charliecloud", str(folder))) == ""


def test_of_two_binds_for_one_place_the_later_counts_and_outer_folders_come_first(sif, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/lara")
    container = Container("apptainer", str(sif), ("/a/b/c:/data/night", "/a:/data"))
    words = command(container, ["true"], binds=["$SCRATCH:/data:ro"])
    assert [words[i + 1] for i, word in enumerate(words) if word == "--bind"] == [
        "/scratch/lara:/data:ro",
        "/a/b/c:/data/night",
    ]


@pytest.mark.parametrize("bind", ["", "relative", "/a:b", "/a:/b:rx", "/a:/b:ro:x", ":/b"])
def test_malformed_binds_are_refused(bind):
    with pytest.raises(ContainerError, match="HOST"):
        Container("podman", "x", (bind,))


def test_variables_that_are_not_set_are_named(sif, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ContainerError, match=r"\$NOWHERE/x.*not set"):
        command(Container("apptainer", str(sif)), ["true"], binds=["$NOWHERE/x"])
    with pytest.raises(ContainerError, match="image"):
        digest(Container("apptainer", "$NOWHERE/x.sif"))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"engine": "rkt"}, "none of none, apptainer"),
        ({"engine": "podman"}, "needs an image"),
        ({"image": "x.sif"}, "engine is none"),
        ({"options": ("--nv",)}, "engine is none"),
    ],
)
def test_descriptions_that_make_no_sense(values, says):
    with pytest.raises(ContainerError, match=says) as caught:
        Container(**values)
    assert isinstance(caught.value, RequestError)  # exit code 2


def test_missing_engine_says_what_to_do(monkeypatch, sif):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ContainerError, match="apptainer is not here.*module load"):
        check(Container("apptainer", str(sif)))


@pytest.mark.parametrize(("engine", "name"), [("apptainer", "apptainer"), ("charliecloud", "ch-run")])
def test_missing_image_says_what_to_do(engine, name, program, tmp_path):
    program(name, "true")
    with pytest.raises(ContainerError, match="README"):
        check(Container(engine, str(tmp_path / "no")))


def test_an_engine_without_the_image_or_without_its_daemon(program):
    program("docker", "echo 'Cannot connect to the daemon' >&2; exit 1")
    with pytest.raises(ContainerError, match="no image 'x' or does not run.*Cannot connect"):
        check(Container("docker", "x"))


def test_what_is_bound_must_exist(program, sif, tmp_path):
    program("apptainer", "true")
    check(Container("apptainer", str(sif)), [str(tmp_path)])
    with pytest.raises(ContainerError, match="does not exist on this machine"):
        check(Container("apptainer", str(sif)), [str(tmp_path / "no")])


def test_charliecloud_gets_the_places_of_its_binds(program, folder, tmp_path):
    program("ch-run", "true")
    check(Container("charliecloud", str(folder)), [f"{tmp_path}:/work/deep", f"{tmp_path}:/tmp/x"])
    assert (folder / "work/deep").is_dir()
    assert not (folder / "tmp").exists()  # the host's is there


@pytest.mark.parametrize(
    ("task", "settings", "says"),
    [
        ("image", {}, "Neither docker nor podman is installed here and answers"),
        ("test", {"ENGINE": "podman"}, "ENGINE=podman is not installed or does not answer"),
        ("sif", {}, "no program 'apptainer' here"),
    ],
)
def test_building_without_an_engine_says_what_to_do(task, settings, says, tmp_path):
    for name in ("sh", "basename", "dirname", "tr"):
        (tmp_path / name).symlink_to(shutil.which(name))
    script = Path(__file__).parents[1] / "containers" / "build.sh"
    done = subprocess.run(
        [str(script), task], env={"PATH": str(tmp_path), **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert says in done.stderr
