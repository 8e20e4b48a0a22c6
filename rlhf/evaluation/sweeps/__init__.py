"""From the policies of a run and its sweeps to one report: frontiers, ablations, what holds and what does not."""
