"""Does it listen? What a partner's answers are measured by, with baselines in the same run."""
