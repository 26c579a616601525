"""What the commands do: each function is one command, its arguments already read."""
