"""`python -m modelward_repo` is `modelward-repo`."""

from modelward_repo.cli import main

if __name__ == "__main__":
    main()
