"""Batch jobs without a batch system: scripts, resubmission, packing of campaigns, what is due; signals in a real shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_workflow as toy

from panacea_nb.cli import main
from panacea_nb.products.layout import Layout
from panacea_nb.workflow import campaign, driver, jobs, node, overview, runs, slurm, staging, status
from panacea_nb.workflow.campaign import Night
from panacea_nb.workflow.jobs import Job
from panacea_nb.workflow.lock import NightLock, Owner, Watch
from panacea_nb.workflow.rundef import RunDefinition
from panacea_nb.workflow.sites import Site
from panacea_nb.workflow.slurm import decide

SITE = Site("cluster", cores=16, memory=64, scheduler="slurm", launcher="srun", partition="normal", walltime="02:00:00",
            modules=("python3",), setup=("source my.env",), sbatch=("--exclusive",))  # fmt: skip


# --- resubmission -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("state", "codes", "times", "again", "fewer"),
    [
        ("TIMEOUT", [], 0, True, False),
        ("NODE_FAIL", [0], 1, True, False),
        ("PREEMPTED", [], 0, True, False),
        ("OUT_OF_MEMORY", [], 0, True, True),
        ("", [3], 0, True, False),
        ("FAILED", [3, 0], 0, True, False),
        ("FAILED", [1, 3], 0, True, False),  # one night failed by itself, another goes on
        ("", [137], 0, True, True),
        ("TIMEOUT", [3], 5, False, False),
        ("", [1, 0], 0, False, False),
        ("FAILED", [1], 0, False, False),
        ("FAILED", [2], 0, False, False),
        ("COMPLETED", [0, 0], 0, False, False),
        ("CANCELLED", [3], 0, False, False),
        ("", [], 0, False, False),
    ],
)
def test_what_deserves_another_try(state, codes, times, again, fewer):
    decision = decide(state, codes, times)
    assert (decision.again, decision.fewer_workers) == (again, fewer)
    assert decision.why


def job_in(tmp_path, **values):
    definition = RunDefinition(night="20250101", output=str(tmp_path), jobs=8)
    job = Job("pnb-20250101", str(tmp_path / "jobs"), [["20250101"]], "02:00:00", **values)
    jobs.write(job, SITE, {"20250101": definition})
    return job


def test_a_job_that_ran_out_of_memory_comes_again_with_half_the_workers(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(slurm, "submit", lambda script: sent.append(script) or str(100 + len(sent)))
    job = job_in(tmp_path)
    assert jobs.send(job) == "101"
    decision, number = jobs.follow(Job.load(job.record), "OUT_OF_MEMORY", SITE)
    assert (decision.again, number) == (True, "102")
    known = Job.load(job.record)
    assert (known.workers, known.again, known.history) == (4, 1, ["101", "102"])
    assert RunDefinition.from_yaml(job.definition_file("20250101")).jobs == 4
    (tmp_path / "jobs" / "pnb-20250101.codes").write_text("20250101 1\n")
    decision, number = jobs.follow(known, "FAILED", SITE)
    assert (decision.again, number) == (False, "")
    assert len(sent) == 2


def test_a_job_comes_again_as_long_as_it_gets_further(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "submit", lambda script: "7")
    known = job_in(tmp_path)
    output = Path(RunDefinition.from_yaml(known.definition_file("20250101")).output)
    folder = Layout(output, "20250101").status_dir
    for number in range(slurm.RESUBMISSIONS + 2):
        status.write(folder, status.Record(f"task{number}", "01_bias", state=status.State.SUCCEEDED))
        assert jobs.follow(known, "TIMEOUT", SITE)[1] == "7"
        known = Job.load(known.record)
    for _ in range(slurm.RESUBMISSIONS - 1):
        assert jobs.follow(known, "TIMEOUT", SITE)[1] == "7"
    assert "got no further" in jobs.follow(known, "TIMEOUT", SITE)[0].why


def test_a_script_that_was_killed_itself_left_no_code_and_comes_again(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "submit", lambda script: "7")
    assert jobs.follow(job_in(tmp_path), "FAILED", SITE)[1] == "7"
    assert jobs.follow(job_in(tmp_path), "", SITE)[1] == ""


def test_files_of_a_job_that_still_runs_are_not_taken(tmp_path):
    first = job_in(tmp_path, job="5")
    again = Job(first.name, first.folder, [["20250102"]], "01:00:00")
    jobs.free_names([again], {"5": "RUNNING"})
    assert again.name == "pnb-20250101.2"
    jobs.free_names([first], {"6": "RUNNING"})
    assert first.name == "pnb-20250101"


# --- scripts ----------------------------------------------------------------------------------------------------------
def test_the_script_can_be_read_and_run_by_hand(tmp_path):
    job = job_in(tmp_path, nodes=2)
    text = job.script.read_text()
    assert "# Reduces night 20250101." in text
    for option in ("--partition=normal", "--nodes=2", "--ntasks-per-node=1", "--time=02:00:00", "--exclusive",
                   "--signal=B:USR1@180", "--requeue", f"--output={tmp_path}/jobs/pnb-20250101-%j.out"):  # fmt: skip
        assert f"#SBATCH {option}\n" in text
    assert "--export" not in text
    assert "--account" not in text
    assert text.index("module load python3") < text.index("source my.env") < text.index("lane 20250101 &")
    assert "export PANACEA_NB_GRACE=120\n" in text
    assert os.access(job.script, os.X_OK)
    subprocess.run(["bash", "-n", job.script], check=True)
    made = RunDefinition.from_yaml(job.definition_file("20250101"))
    assert (made.night, made.jobs, made.nodes) == ("20250101", 8, None)


def test_a_folder_that_a_batch_script_cannot_name_is_refused(tmp_path):
    with pytest.raises(jobs.JobError, match="must be plain"):
        job_in(tmp_path / "a b")


STAND_IN = """#!/bin/bash
# Stands for panacea-nb: `reduce --config JOB.NIGHT.yaml` does what the night says, `submit --follow` is written down.
echo "$@" >> calls
case "$*" in
    *20250101*) trap 'echo warned >> calls; sleep 0.3; exit 3' USR1; touch begun; for i in {1..200}; do sleep 0.1; done;;
    *20250102*) exit 1;;
    *20250103*) kill -9 $$;;
esac
"""


def script_with_stand_in(tmp_path, lanes):
    definition = RunDefinition(night="20250101", output=str(tmp_path))
    job = Job("job", str(tmp_path / "jobs"), lanes, "02:00:00")
    jobs.write(job, Site("c", scheduler="slurm"), dict.fromkeys(job.nights, definition))
    stand_in = tmp_path / "jobs" / "stand_in"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    text = job.script.read_text()
    program = next(line for line in text.splitlines() if line.startswith("panacea_nb=("))
    job.script.write_text(text.replace(program, f"panacea_nb=({stand_in})"))
    return job


def test_the_script_forwards_slurms_warning_and_begins_nothing_more(tmp_path):
    job = script_with_stand_in(tmp_path, [["20250101", "20250104"], ["20250102", "20250103"]])
    process = subprocess.Popen([job.script], stdout=subprocess.PIPE, text=True)
    begun = tmp_path / "jobs" / "begun"
    deadline = time.monotonic() + 20
    while not (begun.exists() and len(job.codes()) == 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=20)
    assert job.codes() == {"20250101": 3, "20250104": 3, "20250102": 1, "20250103": 137}
    calls = (tmp_path / "jobs" / "calls").read_text().splitlines()
    assert calls.count("warned") == 1
    assert not any("20250104" in call for call in calls)
    assert calls[-1] == "submit --follow job.json"


def test_a_cancelled_script_does_not_come_again(tmp_path):
    job = script_with_stand_in(tmp_path, [["20250101"]])
    process = subprocess.Popen([job.script], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not (tmp_path / "jobs" / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 3
    assert not any("--follow" in call for call in (tmp_path / "jobs" / "calls").read_text().splitlines())


# --- campaigns --------------------------------------------------------------------------------------------------------
def nights(*works: float) -> list[Night]:
    return [Night(f"202501{n:02d}", "new", 10, work, 60.0) for n, work in enumerate(works, 1)]


def test_nights_are_packed_into_few_jobs_with_room(tmp_path):
    site = Site("c", cores=4, memory=64, scheduler="slurm", walltime="01:00:00", grace=120)
    found = nights(*[2000.0] * 7, 60.0)
    room = 3600 - 120 - jobs.TAIL
    each = found[0].seconds(4)
    assert each == pytest.approx(1.3 * (60 + 1940 / 4) + 45)
    made = campaign.pack(found, site, tmp_path)
    assert sorted(night for job in made for night in job.nights) == [night.night for night in found]
    assert len(made) == 2  # four nights of 754 s an hour, the short one in a gap
    for job in made:
        assert len(job.lanes) == 1
        assert sum(night.seconds(4) for night in found if night.night in job.nights) <= room
        assert jobs.wall_seconds(job.walltime) <= 3600


def test_a_big_node_takes_nights_beside_each_other(tmp_path):
    site = Site("c", cores=32, memory=128, scheduler="slurm", walltime="01:00:00")
    made = campaign.pack(nights(*[4000.0] * 4), site, tmp_path)
    assert len(made) == 1
    assert made[0].workers == 8
    assert len(made[0].lanes) <= 4
    assert campaign.lanes_of(site, 2, None, 9) == (1, None)
    assert campaign.lanes_of(Site("c"), 1, None, 9) == (1, None)


def test_a_short_campaign_asks_for_a_short_wall_time(tmp_path):
    site = Site("c", cores=4, memory=64, scheduler="slurm", walltime="12:00:00")
    assert campaign.pack(nights(100.0), site, tmp_path)[0].walltime == "00:15:00"
    endless = campaign.pack(nights(1e6), site, tmp_path)  # goes on in the next job
    assert [job.walltime for job in endless] == ["12:00:00"]
    assert campaign.pack(nights(100.0), site, tmp_path, wall=1200)[0].walltime == "00:15:00"


def test_the_longest_chain_of_what_is_due(tmp_path):
    definition = toy.definition_of(tmp_path, 1, {"sides": "uv"})
    plan = toy.planner({}, tmp_path / "nb")(definition, Layout(tmp_path, toy.TOY_NIGHT))
    seconds = {"00_start": 1.0, "01_base": 2.0, "02_mid": 3.0, "05_leaf": 10.0, "10_end": 4.0}
    assert campaign.measure(plan, plan.tasks, seconds) == (30.0, 20.0)
    assert campaign.measure(plan, ["02_mid-uv", "10_end"], seconds) == (7.0, 7.0)
    assert campaign.measure(plan, [], seconds) == (0.0, 0.0)


def test_dates():
    assert campaign.dates("20241230", "20250102") == ["20241230", "20241231", "20250101", "20250102"]
    with pytest.raises(campaign.CampaignError, match="is later than"):
        campaign.dates("20250102", "20250101")


def looked(out, options=None, night=toy.TOY_NIGHT):
    """What a campaign says of the toy night."""
    options = options or {}
    settings = toy.settings_of(out, options)
    definition = toy.definition_of(out, 1, options)

    def forecast(asked, **more):
        return runs.forecast(asked, settings, **more)

    return campaign.look(definition, [night], forecast=forecast)[0]


def test_a_night_is_due_when_it_lacks_something_and_only_then(tmp_path):
    out = tmp_path / "out"
    first = looked(out)
    assert (first.why, first.due) == ("00_start: new", 10)
    assert toy.reduce(out).exit_code == driver.DONE
    assert (looked(out).why, looked(out).due) == ("up to date", 0)
    product = out / "LRS2/CALS/02_mid-uv.txt"
    product.unlink()
    again = looked(out)
    assert again.why == "02_mid-uv: missing LRS2/CALS/02_mid-uv.txt"
    assert again.due == 4  # with both exposures and the closing page
    assert toy.reduce(out).exit_code == driver.DONE
    assert looked(out, {"knob.01_base": "5"}).due > 0
    assert looked(out).due == 0


def test_what_failed_by_itself_is_not_submitted_again(tmp_path):
    out = tmp_path / "out"
    trouble = {"trouble.02_mid-uv": "raise"}
    assert toy.reduce(out, options=trouble).exit_code == driver.INCOMPLETE
    seen = looked(out, trouble)
    assert seen.due == 0
    assert "failed before" in seen.why
    # A kernel that was killed says nothing against its notebook.
    assert toy.reduce(out, options={"trouble.02_mid-uv": "kill"}).exit_code == driver.INCOMPLETE
    assert looked(out, {"trouble.02_mid-uv": "kill"}).due > 0


def test_a_night_at_work_is_left_alone(tmp_path):
    out = tmp_path / "out"
    with NightLock(Layout(out, toy.TOY_NIGHT).night_dir, Owner.this_process()):
        seen = looked(out)
    assert seen.due == 0
    assert "a run works on it" in seen.why


def test_a_night_in_a_job_is_left_alone(tmp_path, monkeypatch):
    out = tmp_path / "out"
    job = Job("j", str(out / "NIGHTS" / "jobs"), [[toy.TOY_NIGHT, "20250102"]], "01:00:00", job="55")
    job.save()
    monkeypatch.setattr(slurm, "active", lambda: {"55": "PENDING"})
    assert looked(out).why == "job 55 (pending) is at it"
    Path(job.folder, "j.codes").write_text(f"{toy.TOY_NIGHT} 0\n")  # it goes on with the other night
    assert looked(out).due == 10


# --- command line -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-d", "20250101"], "site local has no batch system"),
        (["-d", "20250101", "--from", "20250101"], "give one or the other"),
        (["-d", "20250101", "--site", "slurm-generic", "--pilot"], "--pilot is for reduce"),
        (["-d", "20250101", "--site", "slurm-generic", "--time", "2h"], "is not a time HH:MM:SS"),
        (["--from", "20250101", "--to", "2025", "--site", "slurm-generic"], "--to: '2025'"),
        (
            ["-d", "20250101", "--site", "tacc-lonestar6-vm-small", "--nodes", "2", "--dry-run"],
            "no launcher for several",
        ),
    ],
)
def test_submissions_that_cannot_be_meant(tmp_path, capsys, words, message):
    assert main(["submit", *words, "--baseraw", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_the_script_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    words = ["submit", "-d", "20250101", "--site", "slurm-generic", "--baseraw", str(tmp_path), "--dry-run"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n# Reduces night 20250101.\n")
    assert not (tmp_path / "out").exists()
    assert main([*words[:-1], "--output", str(tmp_path / "out")]) == 2
    assert "there is no sbatch here" in capsys.readouterr().err
    words = ["submit", "--from", "20250101", "--to", "20250103", *words[3:], "--output", str(tmp_path / "out")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "20250102  -           no data" in told
    assert told.endswith("3 night(s): 0 to be submitted in 0 job(s), 3 left\n")
    assert not (tmp_path / "out").exists()


def test_sites_are_listed_and_explained(capsys):
    assert main(["sites"]) == 0
    assert "tacc-vista" in capsys.readouterr().out
    assert main(["sites", "local"]) == 0
    assert "notebooks at the same time on a node" in capsys.readouterr().out
    assert main(["sites", "loca"]) == 2
    assert "did you mean 'local'?" in capsys.readouterr().err


# --- owners, watchers, copies -----------------------------------------------------------------------------------------
def test_an_owner_in_another_process_space_is_judged_by_its_heartbeat(tmp_path):
    here = Owner.this_process()
    assert here.local
    assert here.alive()
    inside = Owner(here.host, 1, "0", "t", here.began, space="boot pid:[1]")
    assert not inside.local  # the same host's name, but its process 1 is not ours
    assert inside.alive()
    with NightLock(tmp_path, inside):
        watch = Watch(tmp_path, "t", patience=0.1)
        assert watch.lives()
        watch._looked, watch._heard = 0.0, time.monotonic() - 1.0
        os.utime(tmp_path / ".lock")
        assert watch.lives()  # a sign of life
        watch._looked, watch._heard = 0.0, time.monotonic() - 1.0
        watch._beat = (tmp_path / ".lock").stat().st_mtime_ns
        assert not watch.lives()
        assert not Watch(tmp_path, "another").lives()
    assert not Watch(tmp_path, "t").lives()  # no lock, no driver


def test_status_tells_host_job_and_heartbeat(tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert toy.reduce(out, options={"until": "00"}).exit_code == driver.DONE
    layout = Layout(out, toy.TOY_NIGHT)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    inside = Owner("c401-002", 99, "0", "t", status.now(), space="other", job="4711")
    with NightLock(layout.night_dir, inside):
        text = overview.night(layout)
        assert "process 99 on c401-002 in job 4711" in text
        assert "last sign of life" in text
        os.utime(layout.night_dir / ".lock", (0, 0))  # silent for ages
        assert "c401-002" not in overview.night(layout)


def test_the_watcher_ends_workers_whose_driver_is_gone(tmp_path):
    night = tmp_path / "night"
    owner = Owner("elsewhere", 1, "0", "token", status.now(), space="other")
    command = [sys.executable, "-m", "panacea_nb.workflow.node", str(night), "token", "token-1", str(tmp_path / "s")]
    sleeper = [sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '100'])"]

    def start():
        path = os.pathsep.join(filter(None, [str(Path(node.__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        return subprocess.Popen([*command, *sleeper], env={**os.environ, "PYTHONPATH": path, "PANACEA_NB_RUN": "token"})

    late = start()
    assert late.wait(20) == node.EXIT_ORPHAN  # no lock: a pilot job that comes too late
    with NightLock(night, owner):
        node.pool_file(night).parent.mkdir()
        node.pool_file(night).write_text("token-1")
        running = start()
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(4)
        node.pool_file(night).write_text("token-2")  # the driver has given this pool up
        assert running.wait(10) == node.EXIT_ORPHAN
        running = start()
    from panacea_nb.workflow import processes

    assert running.wait(10) == node.EXIT_ORPHAN
    assert not list(processes.of_run("token"))


def test_raw_archives_are_copied_once_and_read_from_the_copy(tmp_path, monkeypatch):
    from panacea_nb.nearby import nearest

    archive = tmp_path / "a.tar"
    archive.write_bytes(b"x" * 100)
    folder = tmp_path / "scratch" / "raw"
    assert staging.stage([str(archive)], folder) == []
    monkeypatch.setenv(staging.VARIABLE, str(folder))
    copy = Path(nearest(str(archive)))
    assert copy.parent == folder
    assert copy.read_bytes() == archive.read_bytes()
    first = copy.stat().st_ino
    assert staging.stage([str(archive)]) == []
    assert Path(nearest(str(archive))).stat().st_ino == first
    monkeypatch.setattr(staging, "RESERVE", 1 << 60)
    other = tmp_path / "b.tar"
    other.write_bytes(b"y")
    notes = staging.stage([str(other)])
    assert len(notes) == 1
    assert "read in place" in notes[0]
    assert nearest(str(other)) == str(other)
    assert len(staging.stage([str(tmp_path / "missing.tar")])) == 1
    monkeypatch.delenv(staging.VARIABLE)
    assert staging.stage([str(other)]) == []
    assert nearest(str(archive)) == str(archive)


def test_products_made_on_the_nodes_own_disk_end_up_in_place(tmp_path):
    out = tmp_path / "out"
    site = tmp_path / "site.yaml"
    site.write_text("staging: true\n")
    assert toy.reduce(out, options={"site": str(site)}).exit_code == driver.DONE
    assert (out / "LRS2/CALS/02_mid-uv.txt").read_text() == "1"
    assert not list((out / "NIGHTS").rglob(".staging/*"))
    assert toy.reduce(out).ran == []  # the same work, wherever it was done


def test_the_group_of_a_programmes_folder_is_handed_on(tmp_path):
    from panacea_nb.workflow import files

    group = os.getgid()
    root = tmp_path / "LRS2"
    files.hand_on(root, group)
    source = tmp_path / "made.fits"
    source.write_text("x")
    source.chmod(0o600)
    files.move(source, root / "HET25-1-101" / "multi.fits")
    folder = root / "HET25-1-101"
    assert folder.stat().st_mode & 0o7777 == 0o2750
    assert (folder / "multi.fits").stat().st_mode & 0o777 == 0o640
    assert (folder / "multi.fits").stat().st_gid == group
    plain = tmp_path / "plain.fits"
    plain.write_text("x")
    plain.chmod(0o600)
    files.move(plain, tmp_path / "elsewhere" / "plain.fits")
    assert (tmp_path / "elsewhere" / "plain.fits").stat().st_mode & 0o777 == 0o600  # nothing was asked for here


def test_an_unknown_group_is_named(tmp_path, capsys):
    words = ["reduce", "-d", toy.TOY_NIGHT, "--baseraw", str(tmp_path), "--group", "no-such-group"]
    out = tmp_path / "out"
    assert toy.reduce(out).exit_code == driver.DONE
    with pytest.raises(runs.GroupError, match="there is no group 'no-such-group'"):
        toy.reduce(out, options={"group": "no-such-group"})
    assert main([*words, "--output", str(out)]) == 2  # the night is missing; whatever is wrong, it is a request
