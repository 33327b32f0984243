"""Every Prometheus name, label, unit and meaning, in one list; `reading.py` says what each is read from.

`scrape.py` turns the list into the page that Prometheus scrapes; `docs/metrics.md` is made from it, and every alert and
every panel of the dashboard is held to it by a test.
"""

from streamlearn.reading import OTHER
from streamlearn.telemetry.change import CHANGE
from streamlearn.telemetry.learning import LEARNING
from streamlearn.telemetry.records import OUTCOMES, REASONS, RECORDS
from streamlearn.telemetry.row import PREFIX, Row
from streamlearn.telemetry.servers import CODES, SERVERS
from streamlearn.telemetry.service import SERVICE

__all__ = ["CODES", "OUTCOMES", "PREFIX", "REASONS", "ROWS", "SERVERS", "Row", "reference"]

ROWS = (*RECORDS, *LEARNING, *CHANGE, *SERVICE, *SERVERS)


def reference() -> str:
    """`docs/metrics.md`, from the list."""
    lines = [
        "# Metrics",
        "",
        "Made from `streamlearn/telemetry/` by `python -m streamlearn.telemetry`; do not edit.",
        "",
        "One page, `http://HOST:8082/metrics` (`telemetry.host`, `telemetry.port`), shows the learner and its followers.",
        "A gauge is NaN until there is something to tell. The usual `process_*` metrics of the learner's process stand beside.",
        "A server that no daemon started (`streamlearn serve --follow DIR`) has a page of its own where `serve.metrics_port`",
        "says so, with those that are marked *server*, and nothing of the learner but what it sees of it.",
        "",
        "| name | type | unit | labels | what it says |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{row.full_name}` | {row.kind} | {row.unit} | {_label_text(row)} | {_help(row)} |" for row in ROWS]
    return "\n".join(lines) + "\n"


def _help(row: Row) -> str:
    return f"{row.help} (*server*)" if row in SERVERS else row.help


def _label_text(row: Row) -> str:
    if not row.label:
        return ""
    known = ", ".join(f"`{value}`" for value in row.values if value != OTHER or not row.limit)
    rest = f"the rest is `{OTHER}`" if row.sums_up or OTHER in row.values else "the rest is left out"
    bound = f"{row.limit} values at most, {rest}" if row.limit else ""
    return f"`{row.label}`: {', '.join(filter(None, (known, bound)))}"
