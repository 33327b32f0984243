"""Metrics of those who answer: of all servers of a daemon together, or of one that no daemon started, on a page of its own."""

from streamlearn.follower_files import BUCKETS
from streamlearn.reading import OTHER
from streamlearn.telemetry.row import Row

CODES = ("200", "400", "404", "499", "500", "501", "503")

SERVERS = (
    Row(
        "snapshot_timestamp_seconds",
        "gauge",
        "seconds",
        "When the newest snapshot was published, since the epoch",
        lambda s: s.now.snapshot_time_s,
    ),
    Row(
        "requests_total",
        "counter",
        "requests",
        "Requests that ended since the process began, by status code; 499: the client went away first",
        lambda s: s.servers.requests,
        "code",
        (*CODES, OTHER),
    ),
    Row("request_seconds", "histogram", "seconds", "Duration of a request, in the server", buckets=BUCKETS),
    Row("answered_rows_total", "counter", "rows", "Rows answered since the process began", lambda s: s.servers.rows),
    Row("posted_samples_total", "counter", "records", "Samples posted since the process began", lambda s: s.servers.samples),
    Row(
        "posted_labels_total", "counter", "records", "Late labels posted since the process began", lambda s: s.servers.feedback
    ),
    Row(
        "lost_answers_total",
        "counter",
        "rows",
        "Rows of questions with an id whose answer was not recorded, since the process began; the learner scores its own",
        lambda s: s.servers.lost_answers,
    ),
    Row("served_snapshot_number", "gauge", "chunks", "Least number that a follower serves", lambda s: s.servers.number),
    Row(
        "served_snapshot_timestamp_seconds",
        "gauge",
        "seconds",
        "When the oldest snapshot that a server answers from was published, since the epoch",
        lambda s: s.servers.time_s,
    ),
    Row(
        "learner_silence_seconds",
        "gauge",
        "seconds",
        "The longest that a follower has not heard of the learner",
        lambda s: s.servers.silence_s,
    ),
    Row(
        "failed_loads_total",
        "counter",
        "loads",
        "Snapshots that a follower could not load, since the process began",
        lambda s: s.servers.failed_loads,
    ),
    Row("build_info", "info", "1", "Labels version and python: what runs"),
)
