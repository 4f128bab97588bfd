"""Sites: what a file may say, what follows from it, and the pools of workers made of it."""

from __future__ import annotations

import dataclasses

import pytest

from panacea_nb.workflow import pool, sites
from panacea_nb.workflow.containers import Container
from panacea_nb.workflow.sites import Site, SiteError
from panacea_nb.workflow.stages import STAGES


def test_the_sites_that_travel_with_the_package_are_valid():
    assert {"local", "slurm-generic", "tacc-lonestar6", "tacc-lonestar6-development", "tacc-lonestar6-vm-small",
            "tacc-stampede3", "tacc-vista"} == set(sites.names())  # fmt: skip
    for name in sites.names():
        site = sites.find(name)
        assert site.name == name
        assert site.about
        assert name in sites.listing()
    assert sites.find("local") == Site("local", about=sites.find("local").about)


def test_facts_of_tacc():
    big, small = sites.find("tacc-lonestar6"), sites.find("tacc-lonestar6-vm-small")
    assert (big.cores, big.memory, big.launcher, big.container.engine) == (128, 256, "ibrun", "apptainer")
    assert (small.partition, small.cores, small.launcher) == ("vm-small", 16, "none")
    assert sites.find("tacc-vista").cores == 144
    for name in (name for name in sites.names() if name.startswith("tacc")):
        # Against TACC's rules: --export, names of nodes, --gres.
        assert not sites.find(name).sbatch


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("core: 4", "unknown key 'core': did you mean 'cores'?"),
        ("colour: red", "unknown key 'colour': keys are name, about, cores"),
        ("cores: four", "cores: 'four' is not a whole number"),
        ("cores: true", "cores: True is not a whole number"),
        ("memory: 0", "memory: 0 is not a number of GB"),
        ("staging: maybe", "staging: 'maybe' is neither true nor false"),
        ("launcher: mpirun", "launcher: 'mpirun' is none of none, srun, ibrun"),
        ("walltime: 2 h", "is not a time"),
        ("walltime: '00:03:00'", "leaves nothing before the grace of 180 s"),
        ("modules: python", "modules: 'python' is not a list"),
        ('sbatch: ["a\\nb"]', "holds more than one line"),
        ("nodes: 2", "2 nodes need a launcher"),
        ("scratch: tmp", "scratch: 'tmp' is not an absolute path"),
        ("partition: 'a b; rm'", "is not the name of a partition"),
        ("container: podman", "container: 'podman' is not a list of lines"),
        ("container: {engin: podman}", "container: unknown key 'engin': did you mean 'engine'?"),
        ("container: {engine: lxc, image: a}", "engine: 'lxc' is none of none, apptainer"),
        ("container: {engine: podman}", "container: container engine podman needs an image"),
        ("container: {engine: podman, image: 3}", "container: image: 3 is not a text"),
        ("- a", "must be a list of lines"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(SiteError) as caught:
        sites.find(str(path))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_an_unknown_name_brings_the_nearest():
    with pytest.raises(SiteError, match="did you mean 'tacc-lonestar6'"):
        sites.find("tacc-lonestar")
    with pytest.raises(SiteError, match="there is no file"):
        sites.find("elsewhere/mine.yaml")


def test_a_file_of_ones_own(tmp_path):
    path = write(
        tmp_path,
        "cores: 4\nmemory: 8\ncontainer:\n  engine: podman\n  image: panacea-nb\n  binds: ['/data:/data:ro']\n",
    )
    site = sites.find(str(path))
    assert site == Site("mine", cores=4, memory=8.0, container=Container("podman", "panacea-nb", ("/data:/data:ro",)))
    assert "podman panacea-nb" in sites.explain(site)


def test_workers_fill_a_node_but_do_not_overrun_it():
    peak = max(stage.memory for stage in STAGES)
    assert peak == 1040
    assert Site("a", cores=4, memory=64).workers_per_node() == 4
    # 90 % of 6 GB, without 400 MB for the driver, holds four of 1040 MB.
    assert Site("a", cores=16, memory=6).workers_per_node() == 4
    assert Site("a", cores=16, memory=1).workers_per_node() == 1
    assert Site("a", cores=16, memory=1, workers=7).workers_per_node() == 7
    light = [dataclasses.replace(STAGES[0], memory=100)]
    assert Site("a", cores=64, memory=6).workers_per_node(light) == 50


def test_memory_is_that_of_the_batch_job(monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2500")
    assert Site("a", cores=8).workers_per_node() == 1
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")  # all of the node
    assert sites.available_memory() > 0


def test_the_account_is_needed_by_those_who_submit_only(monkeypatch):
    monkeypatch.delenv("PANACEA_ACCOUNT", raising=False)
    site = sites.find("tacc-lonestar6")
    with pytest.raises(SiteError, match="export PANACEA_ACCOUNT=YOUR-ACCOUNT"):
        site.account_name()
    assert "is not set here" in sites.explain(site)
    monkeypatch.setenv("PANACEA_ACCOUNT", "AST1")
    assert site.account_name() == "AST1"


# --- pools ------------------------------------------------------------------------------------------------------------
def test_the_command_of_a_local_pool_is_plain(tmp_path):
    engine = pool.ParslEngine(3, "token", tmp_path)
    assert (engine.slots, engine.per_node) == (3, 3)
    words = engine._launch_command(" {debug}").split()
    assert words[1:3] == ["-m", "parsl.executors.high_throughput.process_worker_pool"]
    assert words[-1] == "{debug}"


def test_workers_elsewhere_have_a_watcher(tmp_path):
    site = Site("a", launcher="srun", workers=4)
    place = pool.Place(site, tmp_path / "n{1}", tmp_path / "scratch", nodes=3)
    engine = pool.ParslEngine(None, "token", tmp_path, place)
    assert (engine.slots, engine.per_node) == (12, 4)
    assert pool.ParslEngine(7, "token", tmp_path, place).per_node == 3
    command = engine._launch_command(" {debug}").format(debug="x").format()  # as Parsl does
    assert f"-m panacea_nb.workflow.node '{tmp_path}/n{{1}}' token token-0 {tmp_path}/scratch" in command
    assert "PANACEA_NB_RUN=token" in command
    assert command.endswith(f"-m panacea_nb.workflow.process_worker_pool {tmp_path}/scratch x")
    launched = pool.Launcher("srun")("POOL", 1, 3)
    assert launched.startswith("exec srun --nodes=3 --ntasks=3 --ntasks-per-node=1 ")
    assert launched.endswith(" POOL")
    assert pool.Launcher("ibrun")("POOL", 1, 3) == "exec ibrun -n 3 POOL"


def test_workers_in_a_container_take_the_images_python(tmp_path, monkeypatch):
    monkeypatch.setattr(pool.containers, "digest", lambda _: "sha256:1")
    site = Site("a", container=Container("podman", "panacea-nb"))
    place = pool.Place(site, tmp_path / "night", tmp_path / "scratch", binds=("/data:/data:ro",))
    assert place.apart
    assert not place.spread
    command = pool.ParslEngine(1, "token", tmp_path, place)._launch_command("")
    assert command.startswith("podman run")
    assert "--volume /data:/data:ro" in command
    assert f"TMPDIR={tmp_path}" in command
    assert "PYTHONPATH" not in command  # the image has its own package
    assert "python3 -m panacea_nb.workflow.node" in command.replace("--entrypoint=python3 panacea-nb", "python3")


def test_what_a_site_cannot_do_is_refused(tmp_path):
    with pytest.raises(pool.PlaceError, match="has no launcher"):
        pool.Place(Site("a"), tmp_path, tmp_path, nodes=2).check(tmp_path)
    with pytest.raises(pool.PlaceError, match="needs a site with a batch system"):
        pool.Place(Site("a"), tmp_path, tmp_path, pilot=True).check(tmp_path)
    with pytest.raises(pool.PlaceError, match="must be plain"):
        pool.Place(Site("a", launcher="srun"), tmp_path, tmp_path, nodes=2).check(tmp_path / "a b")


def test_the_drivers_address():
    assert pool.driver_address(Site("a", address="127.0.0.1")) == "127.0.0.1"
    with pytest.raises(pool.PlaceError, match="address"):
        pool.driver_address(Site("a", address="no such host.invalid"))
    assert pool.driver_address(Site("a")).count(".") == 3
