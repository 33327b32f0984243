"""Metrics of what keeps the daemon going: checkpoints, snapshots, source, its server processes."""

from streamlearn.reading import free
from streamlearn.telemetry.row import MAX_MEMBERS, MAX_PARTITIONS, MILLISECONDS_UP, Row

WRITES, FOLDERS = ("journal", "checkpoint", "snapshot", "status"), ("state", "publish")
SECONDS_UP = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

SERVICE = (
    Row("checkpoint_seconds", "histogram", "seconds", "Time to write a checkpoint, beside the loop", buckets=SECONDS_UP),
    Row("checkpoint_pause_seconds", "histogram", "seconds", "Pause of the loop for a checkpoint", buckets=MILLISECONDS_UP),
    Row("checkpoint_timestamp_seconds", "gauge", "seconds", "Time of the newest checkpoint", lambda s: s.now.checkpoint_time_s),
    Row("checkpoint_size_bytes", "gauge", "bytes", "Size of the newest checkpoint", lambda s: s.now.checkpoint_bytes),
    Row("checkpoint_number", "gauge", "chunks", "Number of the newest checkpoint", lambda s: s.now.checkpoint_number),
    Row(
        "kept_checkpoints",
        "gauge",
        "checkpoints",
        "Checkpoints that a drift keeps from being removed",
        lambda s: s.now.kept_checkpoints,
    ),
    Row("snapshot_number", "gauge", "chunks", "Number of the newest published snapshot", lambda s: s.now.snapshot_number),
    Row(
        "disk_refusals_total",
        "counter",
        "writes",
        "Writes that the disk did not take, since the process began: of the journal, and then learning waits, of a checkpoint,"
        " a snapshot or the status, which are tried again",
        lambda s: s.now.disk_refusals,
        "write",
        WRITES,
    ),
    Row(
        "disk_free_bytes",
        "gauge",
        "bytes",
        "Room on the disk of the state directory, and of the folder of snapshots",
        free(FOLDERS),
        "folder",
        FOLDERS,
    ),
    Row("publish_seconds", "histogram", "seconds", "Duration of publishing a snapshot", buckets=MILLISECONDS_UP),
    Row("source_up", "gauge", "1", "1 while the source answers, else 0", lambda s: float(s.now.source_up)),
    Row(
        "source_errors_total",
        "counter",
        "errors",
        "Errors of the source since the process began",
        lambda s: s.now.source_errors,
    ),
    Row(
        "commit_errors_total",
        "counter",
        "errors",
        "Commits of positions for lag tools (`source.group_id`) that failed since the process began",
        lambda s: s.now.commit_errors,
    ),
    Row(
        "lag_records",
        "gauge",
        "records",
        "Records upstream that were not taken yet",
        lambda s: s.now.lag_records,
        "partition",
        limit=MAX_PARTITIONS,
    ),
    Row("lag_seconds", "gauge", "seconds", "Age of the last record taken, 0 when nothing is waiting", lambda s: s.now.lag_s),
    Row(
        "last_record_timestamp_seconds",
        "gauge",
        "seconds",
        "Event time of the last record taken, since the epoch",
        lambda s: s.now.last_record_time_s,
    ),
    Row("prefetch_records", "gauge", "records", "Records read ahead of the loop", lambda s: s.now.prefetch_records),
    Row("prefetch_bytes", "gauge", "bytes", "Bytes read ahead of the loop", lambda s: s.now.prefetch_bytes),
    Row("followers", "gauge", "processes", "Follower processes that run", lambda s: s.now.followers),
    Row(
        "follower_restarts_total",
        "counter",
        "restarts",
        "Followers started again since the process began",
        lambda s: s.now.follower_restarts,
    ),
    Row(
        "questions_waiting_records",
        "gauge",
        "records",
        "Questions that wait in the topics of `serve.kafka`",
        lambda s: s.servers.questions,
    ),
    Row(
        "device_memory_bytes",
        "gauge",
        "bytes",
        "Memory held on an accelerator; no series without one",
        lambda s: s.now.device_bytes,
        "device",
        limit=MAX_MEMBERS,
    ),
    Row("config_info", "info", "1", "Labels name, learner, model, source, device and digest: what was configured"),
)
