"""The dashboard: a reader of the event stream in a process of its own, and the page that it serves."""
