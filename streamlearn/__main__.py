"""`python -m streamlearn`."""

from streamlearn.cli import main

main()
