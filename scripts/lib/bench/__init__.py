"""What scripts/bench is made of: the cases, one measurement (a process of its own), and the report."""
