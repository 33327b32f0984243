"""`streamlearn`: arguments → configuration → exit code.

0 clean drain, also on SIGTERM; 2 usage, configuration, or port in use; 3 source lost; 4 checkpoint refused or directory locked;
70 internal fault; 128 + N on a second signal N.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streamlearn import __version__
from streamlearn.errors import ConfigError, StreamlearnError
from streamlearn.settings import read

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before torch and numpy: a second thread costs far more than it gives here

app = typer.Typer(
    name="streamlearn",
    help="Learns from a stream of labelled samples without forgetting, and answers from the model it is training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; `streamlearn demo --print-config` shows one")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="set one key, over file and environment")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="be the owner of the state directory though another daemon may hang on it")
    ] = False,
) -> None:
    """The daemon: learns from the source until it is stopped, and serves."""
    from streamlearn import commands  # noqa: PLC0415  loads torch

    commands.run(_loaded(config, overrides), take_over=take_over)


@app.command()
def demo(
    state_dir: Annotated[Path, typer.Option(help="where the demo keeps its state; start again and it goes on")] = Path(
        "state/demo"
    ),
    port: Annotated[int, typer.Option(help="port of the page and the endpoint")] = 8080,
    metrics_port: Annotated[int, typer.Option(help="port of /metrics")] = 8082,
    rate: Annotated[float, typer.Option(help="samples a second", min=0.1, max=5000)] = 200.0,
    print_config: Annotated[bool, typer.Option("--print-config", help="print the demo's configuration and exit")] = False,
) -> None:
    """The daemon on the embedded log, with a real drifting stream, and the page."""
    from streamlearn import commands  # noqa: PLC0415  loads torch

    if print_config:
        typer.echo(commands.demo_yaml(state_dir, port, metrics_port), nl=False)
        return
    commands.demo(state_dir, port=port, metrics_port=metrics_port, rate=rate)


@app.command()
def check(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Validate the configuration, connect to what it names, decode one record, and print what would run."""
    from streamlearn import commands  # noqa: PLC0415  loads torch

    _print(commands.check(_loaded(config, overrides)), as_json=as_json)


@app.command()
def replay(
    config: ConfigFile,
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="recorded stream: .jsonl, .csv, .npz or .messages, or a folder: `orders[3].jsonl` for each partition",
        ),
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="journal folder of the run to be repeated")] = None,
    until: Annotated[
        str,
        typer.Option(
            metavar="PLACE", help="instead: the state right before `orders[3]@88112`, from the daemon's own source and journal"
        ),
    ] = "",
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="keep what `--until` rebuilt as the checkpoint of a new directory")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """The same loop, as fast as it goes, over a recorded stream or over the past; nothing is served and no state is changed."""
    from streamlearn import commands  # noqa: PLC0415  loads torch

    if (source is None) == (not until):
        raise typer.BadParameter("expected either --from FILE, a recorded stream, or --until PLACE, a position of the past")
    told = _loaded(config, overrides)
    if source is None:
        found = commands.replay_until(told, until, to=to)
    else:
        found = commands.replay(told, source, journal=journal, progress=sys.stderr.isatty())
    _print(found, as_json=as_json)


@app.command()
def meta_train(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Make a warm start out of a labelled corpus, from which a daemon begins. Stop it, start it again, and it goes on."""
    from streamlearn import meta_train as command  # noqa: PLC0415  loads torch
    from streamlearn.config import load_meta, merged  # noqa: PLC0415  loads river

    made = command.meta_train(load_meta(config, merged(overrides or [])), progress=sys.stderr.isatty())
    _print(made, as_json=as_json)


@app.command()
def inspect(
    state_dir: Annotated[Path, typer.Argument(metavar="DIR", help="state directory")],
    name: Annotated[str, typer.Option("--checkpoint", help="which one; the newest when left out")] = "",
    as_json: AsJson = False,
) -> None:
    """What a checkpoint holds: positions, numbers, labels, sizes, digests."""
    from streamlearn.inspection import inspected  # noqa: PLC0415  the other commands do not need it

    _print(inspected(state_dir, name), as_json=as_json)


@app.command()
def rollback(
    state_dir: Annotated[Path, typer.Argument(metavar="DIR", help="state directory of a daemon that is stopped")],
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="number of a kept checkpoint, as `inspect` shows it")],
    resume: Annotated[
        Literal["replay", "now"], typer.Option(help="learn again from its own positions, or skip what was read since")
    ] = "replay",
    as_json: AsJson = False,
) -> None:
    """Make an older checkpoint the newest, under a new number; the next start serves it and goes on from it."""
    from streamlearn.rollback import rolled_back  # noqa: PLC0415  the other commands do not need it

    _print(rolled_back(state_dir, number, resume), as_json=as_json)


@app.command()
def serve(
    folder: Annotated[Path, typer.Option("--follow", metavar="DIR", help="folder of snapshots, as the daemon's log names it")],
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="the daemon's configuration: its name, model.module and serve keys hold here too"),
    ] = None,
    *,
    name: Annotated[str | None, typer.Option(help="name of the model in /v2/models/NAME  [default: model]")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen at  [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(help="port to listen at; several servers of one machine may share it  [default: 8080]")
    ] = None,
    grpc_port: Annotated[int | None, typer.Option(help="port of gRPC, shared likewise  [default: none without FILE]")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="port of /metrics, of this server alone  [default: serve.metrics_port, or none]")
    ] = None,
    module: Annotated[str | None, typer.Option(help="factory of a network of your own, package.module:factory")] = None,
    overrides: Overrides = None,
) -> None:
    """Answer from the snapshots that another process publishes; any number of these."""
    from streamlearn import logs  # noqa: PLC0415  the other commands do not need it
    from streamlearn.serving import follower, service, settings  # noqa: PLC0415  the other commands do not need it

    logs.configure()
    if not folder.is_dir():
        raise ConfigError(f"--follow {folder} is not there: expected the folder into which a daemon publishes")
    if overrides and config is None:
        raise ConfigError("--set changes keys of a configuration: expected --config FILE beside it")
    model_name, factory, keys = (
        ("model", "", {"grpc_port": None}) if config is None else _of_servers(_loaded(config, overrides))
    )
    ports = {"host": host, "port": port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    asked = {key: value for key, value in ports.items() if value is not None}
    told = service.Service(
        model_name=name or model_name,
        settings=read(settings.Settings, {**keys, **asked}, path="serve"),
        module=module or factory,
        status=str(folder.parent / "status.json"),
    )
    sys.exit(follower.run(told, folder))


def _of_servers(config: Any) -> tuple[str, str, dict[str, Any]]:
    """The model's name, its factory, and the keys of `serve`."""
    return config.name, str(config.model.rest.get("module", "")), config.serve.rest


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="state directory, or the folder of snapshots")],
    to: Annotated[Path, typer.Option(metavar="FILE", help="MODEL.pt2 for torch.export, MODEL.onnx for ONNX")],
    about: Annotated[str, typer.Option(help="which answers: auto, now or ever, as a question's parameter")] = "auto",
    module: Annotated[str, typer.Option(help="factory of a network of your own, package.module:factory")] = "",
    as_json: AsJson = False,
) -> None:
    """The model that is served now as a file for other programs, labels and input in its metadata."""
    from streamlearn.export.files import exported  # noqa: PLC0415  loads torch
    from streamlearn.snapshot import newest  # noqa: PLC0415  the other commands do not need it

    _print(exported(newest(folder), to, about=about, module=module), as_json=as_json)


dead_letters = typer.Typer(help="Records that could not be learned.", no_args_is_help=True)
app.add_typer(dead_letters, name="dlq")
Places = Annotated[list[str] | None, typer.Argument(metavar="PLACE...", help="as `dlq list` shows them; all when left out")]


@dead_letters.command("list")
def list_letters(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Places and reasons, oldest first."""
    from streamlearn import commands  # noqa: PLC0415  loads torch

    for facts in commands.dead_letters(_loaded(config, overrides)):
        typer.echo(json.dumps(facts) if as_json else f"{facts['place']}  {facts['stage']}  {facts['reason']}")


@dead_letters.command("show")
def show_letter(config: ConfigFile, place: str, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """One letter, with its headers and its original bytes."""
    from streamlearn import commands  # noqa: PLC0415  loads torch

    _print(commands.dead_letter(_loaded(config, overrides), place), as_json=as_json)


@dead_letters.command("replay")
def replay_letters(
    config: ConfigFile,
    places: Places = None,
    value: Annotated[Path | None, typer.Option(metavar="FILE", help="mended bytes of the one letter that is named")] = None,
    overrides: Overrides = None,
) -> None:
    """Send letters to the source again, as they were or mended; sent twice, a letter is learned once."""
    from streamlearn import commands  # noqa: PLC0415  loads torch

    for place in commands.replay_letters(_loaded(config, overrides), places or [], value):
        typer.echo(place)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _loaded(path: Path, overrides: list[str] | None) -> Any:
    from streamlearn import config  # noqa: PLC0415  loads river

    return config.load(path, config.merged(overrides or []))


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "  ".join(f"{name}={_shown(each)}" for name, each in value.items()) or "-"
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, value)) or "-"
    return "-" if value is None else str(value)


def main() -> None:
    """Entry point. One line on stderr for whatever was raised on purpose; a traceback only for a fault of ours."""
    try:
        app()
    except StreamlearnError as error:
        typer.echo(f"streamlearn: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001  an internal fault: its traceback is what a report needs
        sys.excepthook(*sys.exc_info())
        sys.exit(StreamlearnError.exit_code)


if __name__ == "__main__":
    main()
