"""`python -m facemae`."""

from facemae.cli import main

if __name__ == "__main__":
    main()
