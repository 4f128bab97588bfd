"""Pages of targets and programmes: what they show, what they keep apart, how a target is reduced again."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shlex
from urllib.parse import unquote

import numpy as np
import pytest
from report_factory import NIGHT, FakeNight, Page

from panacea_nb.cli.parser import make_parser
from panacea_nb.products.layout import Layout
from panacea_nb.report import build, drawing, find, rerun, share, site, spectra
from panacea_nb.report.assets import one_file, policy
from panacea_nb.report.interactive import as_json
from panacea_nb.report.pdf import BrowserMissingError
from panacea_nb.report.privacy import clean
from panacea_nb.report.records import read_records
from panacea_nb.report.targets import of_night
from panacea_nb.workflow.rundef import RunDefinition, flag_of

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> ../../etc/passwd'


@pytest.fixture
def night(tmp_path):
    """Two programmes with a target each, and calibrations."""
    made = FakeNight(tmp_path / "out put")
    made.observe("HET25-1-101", "NGC1", 5)
    made.observe("HET25-1-201", "SECRET", 6)
    made.record("01_bias-uv", verdict="pass")
    made.record("00_inventory", verdict="pass")
    made.asked(baseraw=str(tmp_path / "raw"))
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The same night with its reports, for tests that only look."""
    made = FakeNight(tmp_path_factory.mktemp("built") / "out put")
    made.observe("HET25-1-101", "NGC1", 5)
    made.observe("HET25-1-201", "SECRET", 6)
    made.record("01_bias-uv", verdict="pass")
    made.asked()
    build(made.layout)
    return made


def everything(folder) -> str:
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".html", ".json") and path.is_file()]
    return "\n".join(
        [*(path.read_text(encoding="utf-8") for path in files), *(str(path) for path in folder.rglob("*"))]
    )


def own(night, program="HET25-1-101"):
    return night.layout.program_report_dir(program)


def test_the_page_of_a_target_shows_and_links_everything(built):
    index = built.layout.report_dir / "index.html"
    page = Page(index.parent / "targets" / "HET25-1-101.NGC1.html")
    for said in (
        "median S/N",
        "01:02:03",
        "uv 900 s; orange 900 s",
        "1.4 arcsec",
        "panacea-nb reduce -d 20250115",
        "Chonis",
    ):
        assert said in page.source
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert all(image["alt"] for image in images)
    assert any("0.5, -0.5 arcsec" in image["alt"] for image in images)
    assert "targets/HET25-1-101.NGC1.html" in Page(index).links()
    data = re.search(r'id="plot-data">(.*?)</script>', page.source)[1]
    names = [series["name"] for series in json.loads(data)["series"]]
    assert names == ["combined", "uv, 5 exp01", "orange, 5 exp01", "error (1 sigma)", "sky"]


def test_links_of_every_report_lead_to_files_and_a_programme_never_to_another(built):
    root = built.output.resolve()
    for report, program in ((built.layout.report_dir, ""), (own(built).parent, "HET25-1-101")):
        for path in report.rglob("*.html"):
            page = Page(path)
            for link in page.links():
                if link.startswith("data:"):
                    continue
                name, _, anchor = link.partition("#")
                target = (path.parent / unquote(name)).resolve() if name else path.resolve()
                assert target.is_file(), (path, link)
                assert target.is_relative_to(root)
                if anchor:
                    assert f'id="{anchor}"' in target.read_text(encoding="utf-8"), (path, link)
                if program:
                    assert target.relative_to(root).parts[:2] in {("LRS2", program), ("LRS2", "CALS")}, link


def test_a_programme_sees_nothing_of_another(night):
    night.layout.night_dir.joinpath("inventory.ecsv").write_text("SECRET")
    night.record("07_flux-0000006-exp02-uv", state="blocked", notebook="LRS2/HET25-1-201/notebooks/x/07_flux.ipynb")
    build(night.layout)
    text = everything(own(night).parent)
    assert "NGC1" in text
    for hidden in ("SECRET", "HET25-1-201", "0000006", "inventory.ecsv", "00_inventory"):
        assert hidden not in text
    night_page = Page(night.layout.report_dir / "index.html").source
    assert "SECRET" in night_page
    assert "01_bias" in text  # calibrations name no target
    index = Page(own(night).parent / "index.html")
    assert f"{NIGHT}/index.html" in index.links()


def test_no_absolute_path_in_any_report_also_of_a_run_that_was_moved(night, tmp_path):
    night.output.rename(tmp_path / "moved")
    night.layout = Layout(tmp_path / "moved", NIGHT)
    build(night.layout)
    for report in (night.layout.report_dir, own(night).parent):
        text = "\n".join(path.read_text(encoding="utf-8") for path in report.rglob("*.html"))
        assert str(tmp_path) not in text
        assert not re.search(r"/(home|Users)/\w", text)


@pytest.mark.parametrize("name", [HOSTILE[:60], 'a\'b "c" & <i>d</i>', "x" * 10_000, "new\nline\u202etext\x00"])
def test_header_texts_do_no_harm(tmp_path, name):
    made = FakeNight(tmp_path / "run")
    made.observe("HET25-1-101", "NGC1", 5)
    made.table(f'5,1,uv,"{name.replace(chr(10), " ").replace(chr(34), chr(39)).replace(chr(0), "")}",3.0')
    record = made.layout.status_dir / "09_combine.HET25-1-101.NGC1.json"
    content = json.loads(record.read_text())
    content["parameters"]["target"] = name
    record.write_text(json.dumps(content))
    report = build(made.layout).parent
    for path in report.rglob("*.html"):
        page = Page(path)
        assert len(page.source) < 600_000
        assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
        assert "\u202e" not in page.source
        for source in (attrs.get("src") or "" for tag, attrs in page.tags if tag == "script"):
            assert source == "" or source.endswith(".min.js")
        assert "<script>alert" not in page.source
    for path in tmp_path.rglob("*"):
        assert path.resolve().is_relative_to((tmp_path / "run").resolve())
        assert len(path.name) < 200


def test_only_the_scripts_of_a_page_may_run(built):
    report = built.layout.report_dir
    for path in (report / "index.html", report / "targets" / "HET25-1-101.NGC1.html"):
        page = Page(path)
        rule = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
        scripts = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
        assert scripts
        for text in scripts:
            assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in rule
        assert "unsafe-eval" not in rule
        assert "default-src 'none'" in rule
    assert "script-src" not in policy()


def test_json_in_a_page_cannot_end_its_element():
    text = as_json({"name": "</script><script>alert(1)</script>\u2028&"})
    assert "<" not in text
    assert json.loads(text)["name"].startswith("</script>")


def test_unchanged_targets_are_not_drawn_again(night):
    report = build(night.layout).parent
    same, changed = (report / "targets" / f"{name}.html" for name in ("HET25-1-101.NGC1", "HET25-1-201.SECRET"))
    before = same.stat().st_ino, changed.stat().st_ino
    night.observe("HET25-1-201", "SECRET", 6, scale=2.0)
    build(night.layout)
    assert same.stat().st_ino == before[0]
    assert changed.stat().st_ino != before[1]


def test_a_target_that_is_gone_loses_its_page(night):
    report = build(night.layout).parent
    (night.layout.status_dir / "09_combine.HET25-1-201.SECRET.json").unlink()
    build(night.layout)
    assert not list((report / "targets").glob("*SECRET*"))
    assert (report / "targets" / "HET25-1-101.NGC1.html").is_file()


def test_damaged_products_leave_a_page_without_a_spectrum(night):
    for path in night.layout.program_dir("HET25-1-101").glob("*.fits"):
        path.write_bytes(b"SIMPLE  =  no fits at all")
    page = Page(build(night.layout).parent / "targets" / "HET25-1-101.NGC1.html")
    assert "No spectrum" in page.source
    assert "plot-data" not in page.source


# --- one file --------------------------------------------------------------------------------------------------------
def test_a_target_as_one_file_needs_no_other(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = share(built.layout, "ngc1")
    assert path == tmp_path / f"NGC1_{NIGHT}.html"
    assert path.stat().st_size < 10e6
    page = Page(path)
    assert all(link.startswith(("data:", "#")) for link in page.links())
    assert not [attrs for tag, attrs in page.tags if tag == "script" and attrs.get("src")]
    assert "Bokeh" in page.source
    assert "SECRET" not in page.source


def test_the_night_as_one_file(built, tmp_path):
    page = Page(share(built.layout, file=tmp_path / "built.html"))
    assert all(link.startswith(("data:", "#")) for link in page.links())
    assert "NGC1" in page.source


@pytest.mark.parametrize(("name", "said"), [("NIX", "no target is called"), ("C", "more than one target fits")])
def test_targets_that_cannot_be_told(built, name, said):
    records, _ = read_records(built.layout.status_dir)
    with pytest.raises(site.NoSuchTargetError, match=said):
        site.find_target(of_night(built.layout, records), name, built.layout)
    found = site.find_target(of_night(built.layout, records), "het25-1-201/sec", built.layout)
    assert found.record.target == "SECRET"


def test_a_pdf_needs_a_browser(built, monkeypatch):
    monkeypatch.setenv("PANACEA_BROWSER", "no-such-browser")
    with pytest.raises(BrowserMissingError, match="apt install chromium"):
        share(built.layout, "NGC1", pdf=True)


def test_links_become_text_in_one_file(tmp_path):
    text = '<a class="x" href="../a.html#b">see</a> <a href="#here">here</a><script>"<a href=\'q\'>";</script>'
    made = one_file(text, tmp_path)
    assert made == '<span class="x">see</span> <a href="#here">here</a><script>"<a href=\'q\'>";</script>'


# --- again -----------------------------------------------------------------------------------------------------------
def test_the_defaults_of_the_command_are_those_of_reduce():
    known = {item.name: item for item in dataclasses.fields(RunDefinition)}
    for name, value in rerun.DEFAULTS.items():
        assert known[name].default == value
    quiet = (None, "", (), False)
    for name, item in known.items():
        if item.default is not dataclasses.MISSING and item.default not in quiet and name not in rerun.LEFT_OUT:
            assert name in rerun.DEFAULTS, f"{name} has a default that the command would repeat"
        if name not in rerun.LEFT_OUT:
            assert flag_of(item) == rerun.FLAGS.get(name, f"--{name}")


def test_the_command_asks_for_what_was_asked():
    options = {
        "night": NIGHT, "sides": ("uv", "orange"), "source_x": -1.5, "source_y": 0.0, "sky_region": "annulus(0.5,-1,2.5,4)",
        "sky_mode": "region", "use_flat": True, "cal_dates": {"twi": "20250113"}, "exclude": (12, "20250114:13"),
        "extraction": "aperture", "aperture": 1.5, "telluric": "mean", "tag": "off", "leave_out": ("12_exp02",),
        "dead_fibers": {"uv": "12-14"}, "drop_lines": {"orange": "5460.75,5769.6"}, "baseraw": "/data", "output": "/x", "jobs": 4,
    }  # fmt: skip
    asked = RunDefinition(**options)
    text = rerun.command(asked.to_dict(), NIGHT, name="it's $HOME; rm -rf /")
    words = shlex.split(text.replace('"$PANACEA_BASERAW"', "/data"))
    assert words[:2] == ["panacea-nb", "reduce"]
    parsed = vars(make_parser(words[1:]).parse_args(words[1:]))
    names = {item.name for item in dataclasses.fields(RunDefinition)}
    again = RunDefinition(**{name: value for name, value in parsed.items() if name in names})
    expected = dataclasses.replace(asked, object="it's $HOME; rm -rf /", output=".", jobs=None)
    assert again == expected


def test_runs_are_found_by_their_folder(night):
    for named in (night.layout.night_dir, night.layout.status_dir, night.output, night.output / "NIGHTS"):
        assert find.run(named) == Layout(night.output, NIGHT)
    (night.output / "NIGHTS" / f"{NIGHT}_tag" / "status").mkdir(parents=True)
    assert find.run(night.output / "NIGHTS" / f"{NIGHT}_tag").tag == "tag"
    with pytest.raises(find.RunNotFoundError, match="holds 2 runs"):
        find.run(night.output)
    with pytest.raises(find.RunNotFoundError, match="no run lies"):
        find.run(night.output / "LRS2")


# --- numbers ---------------------------------------------------------------------------------------------------------
def test_sky_brightness_in_magnitudes():
    # 1e-17 erg/s/cm2/A at 5792.5 A: f_nu = f lambda^2 / c = 1.119e-28, AB 21.28; a lenslet of 0.348 arcsec2 makes it 20.13
    assert spectra.sky_magnitude(1e-17, "orange") == pytest.approx(21.278 + 2.5 * np.log10(0.59**2), abs=0.02)
    assert spectra.sky_magnitude(0.0, "orange") is None
    assert spectra.sky_magnitude(1e-17, "green") is None


def test_a_single_bad_sample_does_not_set_the_height():
    flux = np.ones(100)
    flux[50], flux[20:23] = 1000.0, 7.0
    low, high = spectra.limits(spectra.smoothed(flux), 0.0)
    assert 7 < high < 8
    assert -1 < low <= 0


def test_previews_say_what_they_show():
    wave = np.linspace(1, 2, 50)
    line = spectra.Spectrum("x", wave, np.where(wave > 1.9, np.nan, wave), np.ones(50), wave, "uv")
    text = drawing.sparkline(line, 'S/N "5" <b>')
    assert "&lt;b&gt;" in text
    assert "nan" not in text


def test_clean_texts():
    assert clean("a\x00b\u202ec\n d", 20) == "a b c d"
    assert len(clean("x" * 5000, 80)) == 80
