"""A run made of small notebooks, records and products, put down one by one, and a reader of the pages made of it."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
from astropy.io import fits
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from panacea_nb.products.layout import Layout

NIGHT = "20250115"
CHANNELS = {"uv": (3640.0, 4640.0), "orange": (4635.0, 6950.0)}


class Page(HTMLParser):
    """Tags and texts of a page, for looking things up."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.counts: dict[str, int] = {}
        self.source = path.read_text(encoding="utf-8")
        self._count = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._count = dict(attrs).get("data-count") or ""

    def handle_data(self, data: str) -> None:
        if self._count:
            self.counts[self._count] = int(data)
            self._count = ""

    def links(self) -> list[str]:
        return [attrs[name] for _, attrs in self.tags for name in ("href", "src") if attrs.get(name)]

    def ids(self) -> set[str]:
        return {attrs["id"] for _, attrs in self.tags if attrs.get("id")}


def png(width: int = 60, height: int = 40) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (30, 90, 160)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def notebook(output: Path, *, html: str = "<table><tr><th>row</th></tr></table>", figures: int = 2) -> str:
    cells = [
        new_markdown_cell("# Sky\n\nLook for **lines** left over. More words."),
        new_code_cell(f'output: str = "{output}"  # root', metadata={"tags": ["injected-parameters"]}),
        new_code_cell("print('done')", outputs=[new_output("stream", name="stdout", text="done <b>bold</b>\n")]),
        new_code_cell("table", outputs=[new_output("execute_result", data={"text/html": html, "text/plain": "t"})]),
    ]
    for _ in range(figures):
        picture = new_output("display_data", data={"image/png": png(), "text/plain": "<Figure>"})
        cells.append(new_code_cell("figure", metadata={"tags": ["figure"]}, outputs=[picture]))
    return nbformat.writes(new_notebook(cells=cells))


class FakeNight:
    """A night whose records, notebooks and products are put down one by one."""

    def __init__(self, output: Path) -> None:
        self.layout = Layout(output, NIGHT)
        self.output = output

    def record(self, task: str, *, state: str = "succeeded", **fields) -> None:
        content = {"id": task, "stage": task.partition("-")[0], "state": state, **fields}
        self.layout.status_dir.mkdir(parents=True, exist_ok=True)
        (self.layout.status_dir / f"{task}.json").write_text(json.dumps(content))

    def exposure(self, obsid: int, channel: str, stage: str = "06_sky", *, text: str | None = None, **fields) -> Path:
        path = self.layout.notebook(stage, channel, obsid, 1, "HET25-1-999")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text is not None else notebook(self.output))
        task = f"{stage}-{obsid:07d}-exp01-{channel}"
        self.record(task, notebook=self.layout.relative(path), **fields)
        return path

    def table(self, *lines: str) -> None:
        columns = ["obsid", "exposure", "channel", "target", "sn"]
        kinds = ["int64", "int64", "string", "string", "float64"]
        head = [f"# - {{name: {name}, datatype: {kind}}}" for name, kind in zip(columns, kinds, strict=True)]
        text = "\n".join(["# %ECSV 1.0", "# ---", "# datatype:", *head, ",".join(columns), *lines])
        text = text.replace("# ---\n", "# ---\n# delimiter: ','\n")
        self.layout.night_table.parent.mkdir(parents=True, exist_ok=True)
        self.layout.night_table.write_text(text + "\n")

    # --- a target with products -----------------------------------------------------------------------------------------
    def observe(self, program: str, target: str, obsid: int, *, scale: float = 1.0, header: dict | None = None) -> None:
        """Exposure 1 of a target in two channels, and its combination, all with products."""
        for channel, (first, last) in CHANNELS.items():
            cards = {
                "OBJECT": f"{target}_056_E",
                "CHANNEL": channel,
                "EXPTIME": 900.0,
                "SEEING": 1.4,
                "THROUGHP": 0.9,
                "AIRMASS": 1.2,
            }
            cards |= {"SNR": 55.0, "SOURCEX": 0.5, "SOURCEY": -0.5, "WAVZERO": True, "WAVSHIFT": 0.21, **(header or {})}
            products = [self.layout.multi(program, obsid, 1, channel), self.layout.spectrum(program, obsid, 1, channel)]
            products[0].parent.mkdir(parents=True, exist_ok=True)
            multi(cards).writeto(products[0], overwrite=True)
            spectrum(np.linspace(first, last, 200), scale, cards).writeto(products[1], overwrite=True)
            path = self.layout.notebook("07_flux", channel, obsid, 1, program)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(notebook(self.output))
            self.record(
                f"07_flux-{obsid:07d}-exp01-{channel}",
                verdict="pass",
                notebook=self.layout.relative(path),
                products={self.layout.relative(one): "digest" for one in products},
                parameters={"program": program, "output": str(self.output)},
                metrics=[{"name": "seeing", "value": 1.4 * scale, "unit": "arcsec", "verdict": "pass"}],
                wall=2.5,
            )
        combined = self.layout.combined(program, target, "combined_spectrum.fits")
        spectrum(np.linspace(3640, 6950, 400), scale, {"OBJECT": f"{target}_056_E", "QRA": "01:02:03"}).writeto(
            combined, overwrite=True
        )
        path = self.layout.notebook("09_combine", program=program, target=target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(notebook(self.output))
        self.record(
            f"09_combine.{program}.{target}",
            stage="09_combine",
            verdict="pass",
            notebook=self.layout.relative(path),
            products={self.layout.relative(combined): "digest"},
            parameters={
                "program": program, "target": target, "expected": 2, "exposures": [f"{c}/{obsid:07d}_exp01" for c in CHANNELS],
            },
        )  # fmt: skip

    def asked(self, **options) -> None:
        self.layout.run_file.parent.mkdir(parents=True, exist_ok=True)
        content = {"night": NIGHT, "sides": ["uv", "orange"], "output": str(self.output), **options}
        self.layout.run_file.write_text(json.dumps(content))


def multi(cards: dict) -> fits.HDUList:
    image = fits.ImageHDU(np.random.default_rng(1).normal(1, 0.1, (19, 32)).astype("f4"), name="collapsed_image")
    image.header.update({"CRVAL1I": -6.2, "CRVAL2I": -3.6, "CDELT1I": 0.4, "CDELT2I": 0.4})
    made = fits.HDUList([fits.PrimaryHDU(np.zeros((2, 2), "f4")), image])
    made[0].header.update(cards)
    return made


def spectrum(wave: np.ndarray, scale: float, cards: dict) -> fits.HDUList:
    flux = scale * 1e-17 * (2 + np.exp(-(((wave - 5007) / 6) ** 2)))
    columns = {
        "wavelength": wave,
        "flux": flux,
        "uncertainty": np.full(wave.size, 1e-18),
        "sky": np.full(wave.size, 3e-18),
    }
    table = fits.BinTableHDU.from_columns([fits.Column(n, "D", array=a) for n, a in columns.items()], name="SPECTRUM")
    made = fits.HDUList([fits.PrimaryHDU(), table])
    made[0].header.update(cards)
    return made
