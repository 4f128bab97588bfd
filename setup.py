"""Build hook: notebooks and sites travel in the wheel as data of the package. Everything else is in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildWithNotebooks(build_py):
    """Copy notebooks/*.ipynb to panacea_nb/_notebooks and runs/sites/*.yaml to panacea_nb/_sites.

    An editable installation uses the checkout's own folders.
    """

    def _data(self) -> dict[Path, Path]:
        if self.editable_mode:
            return {}
        package = Path(self.build_lib, "panacea_nb")
        found = [(source, package / "_notebooks") for source in sorted((HERE / "notebooks").glob("*.ipynb"))]
        found += [(source, package / "_sites") for source in sorted((HERE / "runs" / "sites").glob("*.yaml"))]
        return {source: target / source.name for source, target in found}

    def run(self) -> None:
        super().run()
        for source, target in self._data().items():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + [str(target) for target in self._data().values()]


setup(cmdclass={"build_py": BuildWithNotebooks})
