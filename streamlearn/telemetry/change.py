"""Metrics of whether the world changes, and how the learner takes it."""

from streamlearn.reading import TOP_LABELS, classes_moved, features_moved, fired, measure
from streamlearn.telemetry.row import MAX_MEMBERS, Row

SIGNALS = ("error", "inputs")

CHANGE = (
    Row(
        "drift_detections_total",
        "counter",
        "detections",
        "Detections of drift in the whole stream",
        lambda s: s.now.drift,
        "detector",
        limit=MAX_MEMBERS,
    ),
    Row(
        "drift_timestamp_seconds",
        "gauge",
        "seconds",
        "When a detector last fired, since the epoch",
        lambda s: fired(s.now.drift_times_s, s.now.drift),
        "detector",
        limit=MAX_MEMBERS,
    ),
    Row(
        "input_drift_detections_total",
        "counter",
        "detections",
        "Detections of drift of the inputs in the whole stream",
        lambda s: s.now.input_drift,
        "detector",
        limit=MAX_MEMBERS,
    ),
    Row(
        "input_drift_timestamp_seconds",
        "gauge",
        "seconds",
        "When a detector on the inputs last fired, since the epoch",
        lambda s: fired(s.now.input_drift_times_s, s.now.input_drift),
        "detector",
        limit=MAX_MEMBERS,
    ),
    Row(
        "drift_class_error_rise_ratio",
        "gauge",
        "ratio",
        "By how much the share of wrong answers rose in the classes that moved most, at the newest detection on the error",
        classes_moved,
        "label",
        limit=TOP_LABELS,
    ),
    Row(
        "drift_feature_shift",
        "gauge",
        "1",
        "Standard deviations by which the features that moved most did, at the newest detection on the inputs",
        features_moved,
        "feature",
        limit=TOP_LABELS,
    ),
    Row(
        "drift_alert",
        "gauge",
        "1",
        "1 while a detection is alerted to (`drift.then`), else 0",
        lambda s: s.now.drift_alerts,
        "signal",
        SIGNALS,
    ),
    Row(
        "step_size_factor",
        "gauge",
        "1",
        "By what the learned step sizes are multiplied since a drift; 1: by nothing",
        lambda s: s.now.step_size_factor,
    ),
    Row("gradient_alignment", "gauge", "1", "Cosine of new against replayed gradients", measure("gradient_alignment")),
    Row(
        "gradient_alignment_age_chunks",
        "gauge",
        "chunks",
        "Chunks learned since the gradient alignment was measured",
        measure("gradient_alignment_age_chunks"),
    ),
    Row("step_size_mean", "gauge", "1", "Mean of the learned step sizes", measure("step_size_mean")),
    Row("step_size_zero_ratio", "gauge", "ratio", "Share of step sizes at zero", measure("step_size_zero_ratio")),
    Row("update_norm", "gauge", "1", "Euclidean length of an update of the parameters", measure("update_norm")),
)
