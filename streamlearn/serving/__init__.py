"""Answers from published snapshots, in a process of its own by default. numpy only; torch where a form needs it."""
