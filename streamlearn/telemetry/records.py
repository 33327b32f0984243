"""Metrics of what became of records, and of labels that come late."""

from streamlearn.reading import expiries, late, unlabelled
from streamlearn.telemetry.row import Row

OUTCOMES = ("learned", "probe", "rejected", "skipped", "expired", "joined", "unmatched", "duplicate")
REASONS = ("decode", "admit", "learn", "not_finite")
DELAYS = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0)

RECORDS = (
    Row(
        "records_total",
        "counter",
        "records",
        "Records of the whole stream by outcome, as the checkpoint counts them; after a crash it goes on from the checkpoint",
        lambda s: s.now.outcomes,
        "outcome",
        OUTCOMES,
    ),
    Row("read_records_total", "counter", "records", "Records taken since the process began", lambda s: s.now.read_records),
    Row("turns_total", "counter", "turns", "Turns of the loop since the process began: its heartbeat", lambda s: s.now.turns),
    Row(
        "pending_records",
        "gauge",
        "records",
        "Records read that have no outcome yet, by what they wait for: their chunk, their label, or a label for its sample",
        lambda s: s.now.pending,
        "stage",
        ("chunk", "label", "sample"),
    ),
    Row("pending_bytes", "gauge", "bytes", "Memory that samples take which wait for their labels", late("bytes")),
    Row(
        "label_expiries_total",
        "counter",
        "records",
        "Samples and labels of the whole stream that waited for each other in vain: too long, or until others needed the room",
        expiries,
        "reason",
        ("time", "bound"),
    ),
    Row(
        "unanswered_labels_total",
        "counter",
        "records",
        "Late labels of the whole stream whose sample had no answer yet: scored by the answer given when the label came",
        late("unanswered"),
    ),
    Row(
        "label_delay_seconds",
        "histogram",
        "seconds",
        "Time from a sample to its late label: by event times where both are told, else as they came",
        buckets=DELAYS,
    ),
    Row(
        "served_accuracy_ratio",
        "gauge",
        "ratio",
        "Fading accuracy of answers that were served, once their labels came",
        late("served_accuracy"),
    ),
    Row(
        "unlabelled_accuracy_ratio",
        "gauge",
        "ratio",
        "Estimated accuracy of the answers that wait for their labels, from calibrated confidence, and its 95 % interval",
        unlabelled,
        "bound",
        ("low", "estimate", "high"),
    ),
    Row(
        "unlabelled_accuracy_bias_ratio",
        "gauge",
        "ratio",
        "Fading mean of estimated less true accuracy, over the answers whose labels came",
        late("bias"),
    ),
    Row(
        "rejected_records_total",
        "counter",
        "records",
        "Rejected records of the whole stream: refused at a stage, or learned and undone because the update was not finite",
        lambda s: s.now.rejected,
        "reason",
        REASONS,
    ),
    Row("dead_letters_total", "counter", "records", "Dead letters since the process began", lambda s: s.now.dead_letters),
    Row(
        "dead_letters_lost_total",
        "counter",
        "records",
        "Dead letters that could not be written and were passed, since the process began",
        lambda s: s.now.dead_letters_lost,
    ),
)
