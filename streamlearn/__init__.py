"""Online continual learning on a stream: learn, answer, measure, resume."""

__version__ = "0.1.0"
