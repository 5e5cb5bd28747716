"""`python -m terralean.cli`: the command line of a process that this one starts."""

from terralean.cli import main

if __name__ == "__main__":
    main()
