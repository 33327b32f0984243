"""Fuzzed records in every format, each decoded twice: by the program, and by parsers that share nothing with it.

`python -m benchmarks.fuzz [FORMAT …] --records N --seed S` (`make fuzz`) ends with 1 when the program accepted what the other
parser refuses, read other values than it, raised anything but a DecodeError, or took more memory than a record's length allows.
"""
