"""Parts of scripts/bench: the cases, one measurement (in its own process), and the report."""
