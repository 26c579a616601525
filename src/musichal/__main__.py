"""`python -m musichal`: the same as the command `musichal`."""

from musichal.cli import main

if __name__ == "__main__":
    main()
