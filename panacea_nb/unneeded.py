"""Optional packages that others import and nothing here uses, kept out of a process where they would cost it seconds."""

import sys

# jsonschema checks the format "iri" with it, which no notebook has. JupyterLab brings it along; on import it compiles
# forty grammars, 1.3 s of CPU in a small process and 6 s in a large one, in every worker and report.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
