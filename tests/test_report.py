"""The report of a night made of small notebooks and records written here: it counts, links, escapes and survives."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote

import pytest
from report_factory import NIGHT, FakeNight, Page, notebook, png

from panacea_nb.products.layout import Layout
from panacea_nb.report import build
from panacea_nb.report.figures import caption
from panacea_nb.report.records import number, parse, worst

EVIL = "<script>alert(1)</script>_056_E"


def test_targets_have_a_row_each_with_notebook_and_products(night):
    """The same name in two programmes; names with dots; one combined without an exposure, one blocked."""
    exposures = ["uv/0000001_exp01", "20250116:orange/0000001_exp01"]
    for program, name, more in (
        ("HET25-1-999", "NGC_1.b", {"verdict": "warn", "metrics": [{"name": "snr", "value": 12.34}]}),
        ("HET25-1-888", "NGC_1.b", {"state": "blocked", "error": {"message": "it needs 07_flux"}}),
    ):
        path = night.layout.notebook("09_combine", program=program, target=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(notebook(night.output, figures=3))
        product = night.layout.combined(program, name, "combined_spectrum.fits")
        product.write_bytes(b"SIMPLE")
        night.record(
            f"09_combine.{program}.{name}",
            stage="09_combine",
            notebook=night.layout.relative(path),
            products={night.layout.relative(product): "digest"},
            parameters={"program": program, "target": name, "exposures": exposures, "expected": 3},
            **more,
        )
    page = Page(build(night.layout))
    for program in ("HET25-1-999", "HET25-1-888"):
        assert f"{program}.NGC_1.b" in page.ids()
        assert f"../../../LRS2/{program}/NGC_1.b_{NIGHT}_combined_spectrum.fits" in [
            unquote(link) for link in page.links()
        ]
        assert f"notebooks/{program}.NGC_1.b/09_combine.html" in page.links()
    section = page.source.partition('id="targets"')[2].partition("<h2")[0]
    assert "2 of 3" in section
    assert "uv, orange" in section
    assert "12.34" in section
    assert section.count("badge warn") >= 1
    assert section.count("badge blocked") >= 1
    record = parse({"id": "09_combine.P.x.NGC_1", "parameters": {"program": "P.x", "target": "NGC_1"}}, "")
    assert (record.program, record.target, record.title) == ("P.x", "NGC_1", "09_combine NGC_1")


@pytest.fixture
def night(tmp_path):
    """Two targets: one passes in uv and warns in orange, one fails in uv, stopped in orange and blocks what follows."""
    made = FakeNight(tmp_path / "a run")
    product = made.layout.multi("HET25-1-999", 1, 1, "uv")
    product.parent.mkdir(parents=True)
    product.write_bytes(b"SIMPLE")
    residual = {"name": "sky residual", "value": 1.31, "unit": "sigma", "threshold": {"warn": 1.1, "fail": 1.2}}
    made.exposure(
        1, "uv", verdict="pass", products={made.layout.relative(product): "abc"}, parameters={"program": "HET25-1-999"}
    )
    made.exposure(
        1, "orange", verdict="warn", decisions=[{"code": "GAIN", "text": "gain 0.85 was assumed", "severity": "warn"}]
    )
    made.exposure(2, "uv", verdict="fail", metrics=[{**residual, "verdict": "fail", "reason": "the sky is not gone"}])
    error = {"type": "TraceError", "message": "no fibre found <img src=x>", "where": "02_trace"}
    made.exposure(2, "orange", state="failed", error=error)
    made.record("07_flux-0000002-exp01-orange", state="blocked", error={"message": "06_sky failed"})
    made.record("01_bias-uv", verdict="pass")
    made.table(f'1,1,uv,"{EVIL}",12.345', "2,1,uv,faint_066_W,3.2")
    return made


def pages_of(report) -> list[Page]:
    return [Page(path) for path in sorted(report.rglob("*.html"))]


def test_counts_and_states(night):
    index = build(night.layout)
    assert index == night.layout.report_dir / "index.html"
    page = Page(index)
    assert page.counts == {"pass": 1, "warn": 1, "fail": 1, "open": 1}
    assert "1 blocked" in page.source
    assert "1 failed" in page.source
    assert 'data-value="12.345">12.3<' in page.source  # S/N of the night table
    for said in ("sky residual 1.31 sigma", "warn 1.1, fail 1.2", "The sky is not gone.", "gain 0.85 was assumed"):
        assert said in page.source
    assert "06_sky failed" in page.source
    # The target of the second exposure is on the other IFU.
    assert page.source.count("blank sky on this IFU") == 1


def test_every_link_leads_somewhere_and_none_leaves_the_output(night):
    report = build(night.layout).parent
    pages = pages_of(report)
    assert len(pages) == 5  # the night and four notebooks
    by_path = {page.path.resolve(): page for page in pages}
    for page in pages:
        for link in page.links():
            if link == "data:,":
                continue
            assert not re.match(r"(?!data:image/png)[a-z]+:|//|/", link), link
            name, _, anchor = link.partition("#")
            target = (page.path.parent / unquote(name)).resolve() if name else page.path.resolve()
            assert target.is_file(), link
            assert target.is_relative_to(night.output.resolve())
            if anchor:
                assert anchor in by_path[target].ids(), link


def test_pages_ask_nothing_and_run_nothing_but_their_own_scripts(night):
    for page in pages_of(build(night.layout).parent):
        assert "@import" not in page.source
        assert {"iframe", "object", "embed", "form"}.isdisjoint(tag for tag, _ in page.tags)
        assert [attrs["href"] for tag, attrs in page.tags if tag == "link"] == [
            "data:,"
        ]  # no icon, and none is asked for
        assert not [link for link in page.links() if re.match(r"[a-z]+://|//", link)]
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_untrusted_texts_are_escaped(night):
    evil = '<script>alert(2)</script><img src="http://x/y.png" onerror="alert(3)"><b onclick="f()">kept</b>'
    night.exposure(3, "uv", text=notebook(night.output, html=evil), verdict="pass")
    index = build(night.layout)
    page = Page(index)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;_056_E" in page.source
    assert "no fibre found &lt;img src=x&gt;" in page.source
    shown = Page(index.parent / "notebooks" / "0000003_exp01_uv" / "06_sky.html")
    assert "<b>kept</b>" in shown.source
    assert "x/y.png" not in shown.source
    assert "done &lt;b&gt;bold&lt;/b&gt;" in shown.source
    assert page.source.count("<script>") == 1  # its own
    assert {"script"}.isdisjoint(tag for tag, _ in shown.tags)


def test_figures_become_files_with_alternative_texts(night):
    report = build(night.layout).parent
    folder = report / "notebooks" / "0000001_exp01_uv"
    assert sorted(path.name for path in folder.iterdir()) == [
        "06_sky-01-small.png",
        "06_sky-01.png",
        "06_sky-02-small.png",
        "06_sky-02.png",
        "06_sky.html",
    ]
    assert (folder / "06_sky-01.png").read_bytes() == base64.b64decode(png())
    page = Page(folder / "06_sky.html")
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert {image["alt"] for image in images} == {"Look for lines left over."}
    assert "base64" not in page.source


def test_absolute_paths_do_not_leak(night):
    for page in pages_of(build(night.layout).parent):
        assert str(night.output) not in page.source
    assert "OUTPUT" in Page(night.layout.report_dir / "notebooks/0000001_exp01_uv/06_sky.html").source


def test_unchanged_notebooks_are_not_converted_again(night):
    report = build(night.layout).parent
    same, changed = (report / "notebooks" / f"000000{i}_exp01_uv" / "06_sky.html" for i in (1, 2))
    before = same.stat().st_ino, changed.stat().st_ino
    night.exposure(2, "uv", verdict="pass")
    build(night.layout)
    assert same.stat().st_ino == before[0]
    assert changed.stat().st_ino != before[1]
    assert Page(report / "index.html").counts["pass"] == 2


def test_pages_of_tasks_that_are_gone_are_removed(night):
    report = build(night.layout).parent
    (night.layout.status_dir / "06_sky-0000002-exp01-uv.json").unlink()
    build(night.layout)
    assert not (report / "notebooks" / "0000002_exp01_uv").exists()
    assert (report / "notebooks" / "0000001_exp01_uv" / "06_sky.html").is_file()


def test_damage_does_not_stop_the_report(night):
    (night.layout.status_dir / "05_extract-0000001-exp01-uv.json").write_text("{ half a rec")
    night.exposure(4, "uv", text='{"cells": [', verdict="pass")
    night.exposure(5, "uv", verdict="pass").unlink()
    night.record("05_extract-0000006-exp01-uv", notebook="../../../etc/passwd", verdict="pass")
    night.layout.night_table.write_text("not a table")
    page = Page(build(night.layout))
    assert "05_extract-0000001-exp01-uv.json could not be read" in page.source
    assert page.counts == {"pass": 4, "warn": 1, "fail": 1, "open": 1}
    assert "passwd" not in page.source


def test_a_night_without_records_says_so(tmp_path):
    page = Page(build(Layout(tmp_path, NIGHT)))
    assert "No task of this night has left a record" in page.source
    assert page.counts == {"pass": 0, "warn": 0, "fail": 0, "open": 0}


def test_without_html_the_night_page_links_the_notebooks(night):
    report = build(night.layout, html=False).parent
    assert [path.name for path in report.rglob("*.html")] == ["index.html"]
    page = Page(report / "index.html")
    assert any(link.endswith("06_sky.ipynb") for link in page.links())
    for link in page.links():
        name = unquote(link.partition("#")[0]).removeprefix("data:,")
        assert not name or (report / name).is_file(), link


@pytest.mark.parametrize(
    ("name", "stage", "obsid", "exp", "channel", "folder"),
    [
        ("00_inventory", "00_inventory", None, None, "", "night"),
        ("01_bias-farred", "01_bias", None, None, "farred", "farred"),
        ("07_flux-0000012-exp03-uv", "07_flux", 12, 3, "uv", "0000012_exp03_uv"),
    ],
)
def test_task_ids(name, stage, obsid, exp, channel, folder):
    record = parse({"id": name, "state": "succeeded", "verdict": "pass"}, "")
    assert (record.stage, record.obsid, record.exp, record.channel) == (stage, obsid, exp, channel)
    assert record.folder == folder
    assert record.badge == "pass"


def test_ids_that_are_paths_are_no_records():
    assert parse({"id": "06_sky-../../x"}, "") is None
    assert parse(["not", "a", "mapping"], "06_sky-uv") is None


def test_worst_badge():
    assert worst(["pass", "warn", "fail"]) == "fail"
    assert worst(["pass", "blocked", "fail", "failed"]) == "failed"
    assert worst(["pass", "unjudged"]) == "pass"
    assert parse({"id": "06_sky-0000001-exp01-uv", "state": "running", "verdict": "pass"}, "").badge == "running"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (3, "3"), (2.0, "2"), (0.0123456, "0.01235"), (True, "True"), (1e-17, "1e-17")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_captions():
    assert caption("# Title\n\nThe *trace* is flat. Then more.") == "The trace is flat."
    assert caption("## Only a heading") == "Only a heading"
    assert caption("See [the paper](https://example.org/x) for more") == "See the paper for more"
