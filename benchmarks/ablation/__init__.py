"""`make ablation`: what each part of the detector is worth on labelled data, and what simpler forecasts would do."""
