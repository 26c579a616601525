"""Memory: what was heard, in order, with indexes that find where it was in the same situation."""
