"""Stage 09 in the plan and in a run: who belongs together, what an earlier run left, what a failure costs."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import toy_workflow as toy
from raw_factory import Obs, calibrations, write_night

from panacea_nb.products.layout import Layout
from panacea_nb.workflow import driver, notebooks, plan, runs, stages, status, warm
from panacea_nb.workflow.driver import INCOMPLETE
from panacea_nb.workflow.fingerprint import DigestCache, Fingerprinter
from panacea_nb.workflow.graph import Task
from panacea_nb.workflow.rundef import RunDefinition
from panacea_nb.workflow.stages import TARGET, Stage
from panacea_nb.workflow.status import Record, State

NIGHT = "20250115"
EVENING = datetime(2025, 1, 15, 4)
STANDARD, BLUE, RED, OTHER, ODD = 20, 21, 22, 23, 24


def science(obsid, name, n_exp=1, program="HET25-1-999", target=None):
    start = EVENING + timedelta(minutes=20 * (obsid - STANDARD))
    cards = ({"QPROG": program} if program else {}) | ({"QOBJECT": target} if target else {})
    return Obs(obsid, "sci", name, n_exp, start, 300.0, cards=cards)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A standard, NGC 1 on both arms, the same name in another programme, and a name that no path can hold."""
    root = tmp_path_factory.mktemp("raw")
    targets = [
        science(STANDARD, "HD_19445_056_E", program=""),
        science(BLUE, "NGC_1_056_E", 2),
        science(RED, "NGC_1_066_W"),
        science(OTHER, "NGC_1_056_E", program="HET25-1-888"),
        science(ODD, "x_056_E", target="../M 31 (nucleus)/*"),
    ]
    write_night(root, NIGHT, [*calibrations(NIGHT, lamps=("Hg", "Cd-A_B", "FeAr_R")), *targets])
    return root


@pytest.fixture
def request_of(raw, tmp_path):
    def build(**values) -> plan.Plan:
        values = {"night": NIGHT, "sides": "uv,red", "output": str(tmp_path / "out"), "baseraw": str(raw), **values}
        definition = RunDefinition(**values)
        return plan.build(definition, Layout(tmp_path / "out", NIGHT, definition.tag))

    return build


def combined(made: plan.Plan) -> dict[str, Task]:
    return {name: task for name, task in made.tasks.items() if task.stage.name == "09_combine"}


def reduced_before(tmp_path, name: str, content: str = "1", state: State = State.SUCCEEDED) -> None:
    """The record and the product of a flux task of an earlier run."""
    layout = Layout(tmp_path / "out", NIGHT)
    product = f"LRS2/HET25-1-999/{name}.fits"
    (layout.output / product).parent.mkdir(parents=True, exist_ok=True)
    (layout.output / product).write_text(content)
    status.write(layout.status_dir, Record(name, "07_flux", state, products={product: content}))


def test_a_target_has_all_its_exposures_on_the_ifu_that_held_it(request_of):
    tasks = combined(request_of())
    names = ["STANDARDS.HD_19445", "HET25-1-999.NGC_1", "HET25-1-888.NGC_1", "HET25-1-999.M_31_nucleus"]
    assert set(tasks) == {f"09_combine.{name}" for name in names}
    own = tasks["09_combine.HET25-1-999.NGC_1"]
    assert own.hopes == {
        f"07_flux-{BLUE:07d}-exp01-uv": f"uv/{BLUE:07d}_exp01",
        f"07_flux-{BLUE:07d}-exp02-uv": f"uv/{BLUE:07d}_exp02",
        f"07_flux-{RED:07d}-exp01-red": f"red/{RED:07d}_exp01",
    }
    assert own.parameters["expected"] == 3
    assert not own.needs
    assert not own.after


def test_programmes_are_walled_off(request_of, tmp_path):
    for name, task in combined(request_of()).items():
        program = task.parameters["program"]
        folder = tmp_path / "out/LRS2" / program / "notebooks"
        assert task.notebook == folder / f"{NIGHT}_{task.parameters['target']}" / "09_combine.ipynb"
        assert all(f"{OTHER:07d}" not in word for word in task.hopes.values()) == ("888" not in name)


def test_what_succeeded_is_told_and_the_rest_only_counted(request_of):
    task = combined(request_of())["09_combine.HET25-1-999.NGC_1"]
    told = task.told([f"07_flux-{RED:07d}-exp01-red", f"07_flux-{BLUE:07d}-exp02-uv"])
    assert told.parameters["exposures"] == [f"red/{RED:07d}_exp01", f"uv/{BLUE:07d}_exp02"]
    assert told.depends["exposures"] == told.parameters["exposures"]
    assert told.parameters["expected"] == 3
    notebooks.check_parameters(told.source, told.parameters)
    assert task.hopeless([])
    assert not task.hopeless([f"07_flux-{RED:07d}-exp01-red"])


def test_what_an_earlier_run_has_reduced_is_kept(request_of, tmp_path):
    """A run on red alone must not leave a spectrum without uv; the file would be the same."""
    red = {"sides": "red", "object": "NGC_1"}
    assert combined(request_of(**red))["09_combine.HET25-1-999.NGC_1"].parameters["expected"] == 1
    reduced_before(tmp_path, f"07_flux-{BLUE:07d}-exp01-uv")
    reduced_before(tmp_path, f"07_flux-{BLUE:07d}-exp02-uv", state=State.FAILED)
    reduced_before(tmp_path, f"07_flux-{OTHER:07d}-exp01-uv")  # another programme's
    reduced_before(tmp_path, f"07_flux-{RED:07d}-exp01-red")  # in the plan itself
    made = combined(request_of(**red))
    assert set(made) == {"09_combine.HET25-1-999.NGC_1"}
    (task,) = made.values()
    assert list(task.earlier) == [f"07_flux-{BLUE:07d}-exp01-uv"]
    assert task.parameters["expected"] == 2
    assert task.told(task.hopes).parameters["exposures"] == [f"red/{RED:07d}_exp01", f"uv/{BLUE:07d}_exp01"]
    assert not task.hopeless([])
    (tmp_path / f"out/LRS2/HET25-1-999/07_flux-{BLUE:07d}-exp01-uv.fits").unlink()
    assert not combined(request_of(**red))["09_combine.HET25-1-999.NGC_1"].earlier


@pytest.mark.parametrize("option", ["barycentric", "vacuum", "match_resolution"])
def test_its_options_change_it_alone(request_of, tmp_path, option):
    def prints(made):
        fingerprinter = Fingerprinter(tmp_path, made.baseraw, DigestCache(None), code="same")
        return {name: fingerprinter.compute(task, {}).value for name, task in made.tasks.items()}

    old, new = prints(request_of()), prints(request_of(**{option: True}))
    assert {name.split(".")[0] for name in old if old[name] != new[name]} == {"09_combine"}
    assert sum(old[name] != new[name] for name in old) == 4


def test_until_and_redo(request_of):
    made = request_of()
    cut = made.until(stages.find("combine"))
    assert set(made.tasks) - set(cut.tasks) == {"10_night"}
    assert not combined(made.until(stages.find("08")))
    assert made.forced(["09_combine"]) == set(combined(made))
    forced = made.forced(["06_sky"])
    assert set(combined(made)) <= forced


def test_dry_run_says_why_it_runs(raw, tmp_path):
    definition = RunDefinition(night=NIGHT, sides="uv", output=str(tmp_path / "out"), baseraw=str(raw), obsid=BLUE)
    text = runs.dry_run(definition, driver.Settings(code="same"))
    (line,) = (line for line in text.splitlines() if line.startswith("09_combine"))
    assert line.split()[0] == "09_combine.HET25-1-999.NGC_1"
    assert line.split()[-1] == "new"


COMBINE = Stage("06_combine", TARGET, "the sum", hopes="also")


def toy_run(out: Path, options: dict[str, str]) -> driver.Outcome:
    """The toy night with a task per target before its end."""
    settings = toy.settings_of(out, options)

    def planner(definition, layout, *, cache_dir=None):
        made = settings.planner(definition, layout, cache_dir=cache_dir)
        leaves = {n: f"LRS2/CALS/{n}.txt" for n in made.tasks if n.startswith("05_leaf") and n.endswith("uv")}
        end = made.tasks.pop("10_end")
        parameters = {
            **end.parameters, "stage": COMBINE.name, "knob": 0, "reads": [], "writes": ["LRS2/P/sum.txt"],
            "trouble": options.get("trouble.06_combine", ""),
        }  # fmt: skip
        source = out.parent / "toy_notebooks" / "06_combine.ipynb"
        toy.write_notebook(source, toy.PARAMETERS, toy.COMPUTE, toy.TROUBLE, toy.SAVE)
        task = Task("06_combine.P.NGC_1", COMBINE, source, layout.output / "LRS2/P/06.ipynb", parameters, hopes=leaves)
        return plan.Plan({**made.tasks, task.id: task, end.id: end})

    table = (*toy.TABLE[:-1], COMBINE, toy.TABLE[-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(warm.KERNELS, "plain")  # notebooks of a second gain nothing from a warm kernel
        return runs.reduce(
            toy.definition_of(out, 0, options), dataclasses.replace(settings, planner=planner, table=table)
        )


def test_a_failed_exposure_is_left_out_and_without_any_it_is_blocked(tmp_path):
    out = tmp_path / "out"
    name = "05_leaf-0000002-exp01-uv"
    outcome = toy_run(out, {f"trouble.{name}": "raise"})
    record = outcome.records["06_combine.P.NGC_1"]
    assert record.state is State.SUCCEEDED
    assert record.parameters["also"] == ["LRS2/CALS/05_leaf-0000001-exp01-uv.txt"]
    assert (out / "LRS2/P/sum.txt").is_file()
    outcome = toy_run(tmp_path / "other", {"trouble.02_mid-uv": "raise"})
    record = outcome.records["06_combine.P.NGC_1"]
    assert record.state is State.BLOCKED
    assert "02_mid-uv" in record.error["message"]
    assert outcome.records["10_end"].state is State.SUCCEEDED


def test_a_failed_combination_does_not_stop_the_end_of_the_night(tmp_path):
    outcome = toy_run(tmp_path / "out", {"trouble.06_combine": "raise"})
    assert outcome.exit_code == INCOMPLETE
    assert outcome.records["06_combine.P.NGC_1"].state is State.FAILED
    assert outcome.records["10_end"].state is State.SUCCEEDED
