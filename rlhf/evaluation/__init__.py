"""Who wins: judges, win rates with intervals, KL from the SFT model, plots and the HTML report."""
