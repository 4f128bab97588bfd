"""Quality assurance: metrics, thresholds with reasons, verdicts, and one figure function per thing worth seeing."""
