"""The command line: `alsys run`, `status`, `logs`, `stop`, `rollback`, `report`, `data`, `models` and others.

Exit codes: 0 done, 2 bad input, 3 environment, 4 campaign failed, 130 interrupted, 141
nobody reads the output. An error is one line on stderr; a
traceback only with `--debug`. Heavy packages are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from alsys.cli.processes import begin_again, flush_output, leave, may_begin_again, open_streams
from alsys.errors import AlsysError, RayLost, StoreCorrupt, remedy_of, told
from alsys.threads import are_left
from alsys.version import __version__

EITHER = "campaign directory, or the URL of its mirror (s3://...)"
UNREAD = 141
"""Exit code where whoever read the output (`alsys ... | head -1`) went before all of it was made.

It is what a shell says of programs that SIGPIPE ends, as those of coreutils; as there, nothing is printed. Where the
work was done and only its last lines found no reader, the code is the command's own. A running campaign goes on.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; without `argv` it may end the process, where a call hangs."""
    if argv is None:
        open_streams()
        try:
            code = _main(None)
        except RayLost as error:
            if not may_begin_again():
                raise
            begin_again(error.message)
        if are_left():
            leave(code)
        return code
    return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    args, is_read = argparse.Namespace(debug=False), True
    try:
        try:
            command_line().parse_args(argv, args)
            code: int = args.handler(args)
        finally:
            is_read = flush_output()
    except AlsysError as error:
        if isinstance(error, StoreCorrupt) and (folder := _campaign_of(args)):
            error = error.located(folder)
        if args.debug or (isinstance(error, RayLost) and argv is None and may_begin_again()):
            raise
        sys.stderr.write(f"alsys: {told(error)}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # a read-only folder, a full disk, a path that cannot be
        if isinstance(error, BrokenPipeError) and not is_read:
            return UNREAD
        if args.debug:
            raise
        what = " ".join(str(part) for part in (error.filename, error.filename2) if part is not None)
        with contextlib.suppress(OSError):  # nobody is there to read it
            reason = f"{f'{what}: ' if what else ''}{error.strerror or error}"
            sys.stderr.write(f"alsys: {reason}; {remedy_of(error) or '--debug shows where'}\n")
        return 3
    return code


def _campaign_of(args: argparse.Namespace) -> str:
    """Campaign directory that a command was given; empty where it was given none."""
    named = (getattr(args, name, None) for name in ("directory", "campaign", "source"))
    return next((folder for folder in named if isinstance(folder, str) and os.path.isdir(folder)), "")


_KINDS = {"int": "whole number", "float": "number"}


class _Parser(argparse.ArgumentParser):
    """Its errors are one line, as all others; so are those of its subcommands, which take its class."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong and where the usage is, and exits with 2."""
        field, _, what = message.removeprefix("argument ").partition(": ")
        text = f"{field}: {what}" if what and message.startswith("argument ") else message
        text = re.sub(r"invalid (int|float) value: (.*)", lambda m: f"must be a {_KINDS[m[1]]} (got {m[2]})", text)
        sys.stderr.write(f"alsys: {' '.join(text.split())}; `{self.prog} --help` shows the usage\n")
        raise SystemExit(2)


def command_line() -> argparse.ArgumentParser:
    """All commands, with the handler of each."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    parser = _Parser(prog="alsys", description="An autonomous factory for machine-learned force fields.")
    parser.add_argument("--version", action="version", version=f"alsys {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, handler: str, help_: str, group: Any = commands) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = group.add_parser(name, help=help_, description=help_, parents=[common])
        command.set_defaults(handler=_lazy(handler))
        return command

    run = add("run", "run.run", "start a campaign, or resume it where it is")
    run.add_argument("config", help="campaign file (YAML)")
    run.add_argument(
        "--dry-run", action="store_true", help="check everything on tiny work; print the plan and its cost"
    )
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a field, e.g. stop.labels=50"
    )
    run.add_argument("--quiet", action="store_true", help="line by line, even on a terminal")
    run.add_argument("--ack-log", metavar="FILE", help="append the identity of each label once it is on disk")
    run.add_argument("--take-over", action="store_true", help="although a driver on another machine lives (`mirror`)")

    launch = add(
        "launch", "launch.launch", "run a campaign on a cluster or a cloud: write an engine's files, and submit"
    )
    launch.add_argument("config", help="campaign file (YAML)")
    launch.add_argument("--on", required=True, metavar="ENGINE", help="skypilot, kuberay, ray or slurm; docs/launch.md")
    launch.add_argument("--estimate", action="store_true", help="label each system here, for the cost until the end")
    launch.add_argument("--render", metavar="DIR", help="only write the files, and say how to submit them")
    launch.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field")

    cluster = commands.add_parser("cluster", help="about files of clusters").add_subparsers(
        required=True, metavar="COMMAND"
    )
    checked = add("validate", "cluster.validate", "check files for `ray up`: Ray's schema, doors, room", cluster)
    checked.add_argument("file", nargs="*", help="default: those that `alsys launch --on ray` wrote below launch/")
    checked.add_argument(
        "--campaign", metavar="CONFIG", help="whose workers are to fit (default: that beside the file)"
    )
    checked.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field of CONFIG")

    status = add("status", "inspect.status", "what a campaign is doing")
    status.add_argument("directory", help=EITHER)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument("--watch", nargs="?", type=float, const=2.0, metavar="SECONDS", help="repeat")

    logs = add("logs", "logs.logs", "what workers on Ray and the driver have written")
    logs.add_argument("directory", help=EITHER)
    logs.add_argument("worker", nargs="?", metavar="WORKER", help="as labeler-0, or driver; default: list them")
    logs.add_argument("--lines", type=int, default=50, metavar="N", help="last lines to print (default 50)")
    logs.add_argument("--follow", action="store_true", help="go on printing while a driver runs")

    fetch = add("fetch", "fetch.fetch", "copy a campaign from its mirror in object storage, for reading or to go on")
    fetch.add_argument("url", metavar="URL", help="the campaign's `mirror`")
    fetch.add_argument("directory", help="folder for the copy")
    fetch.add_argument(
        "--follow", nargs="?", type=float, const=30.0, metavar="SECONDS", help="again and again (default every 30)"
    )

    stop = add("stop", "inspect.stop", "ask a running campaign to stop; `alsys run` resumes it")
    stop.add_argument("directory", help=EITHER)
    stop.add_argument("--drain", action="store_true", help="finish the work in flight first")
    stop.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for it (default 600)")

    rollback = add("rollback", "curation.rollback", "make an earlier model version champion again, and go on from it")
    rollback.add_argument("directory", help=EITHER)
    rollback.add_argument("version", nargs="?", help="as v0004 or 4; default: the champion before this one")
    rollback.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for a driver (default 60)")

    report = add("report", "inspect.report", "write report.html")
    report.add_argument("directory", help=EITHER)
    report.add_argument("--output", help="default: report.html in the campaign directory")

    data = commands.add_parser("data", help="look at, check and export the labelled data").add_subparsers(
        required=True, metavar="COMMAND"
    )
    info = add("info", "inspect.data_info", "what the store holds", data)
    verify = add("verify", "inspect.data_verify", "check every array against HEAD and the log", data)
    export = add("export", "data_export.data_export", "write labelled frames", data)
    card = add("card", "data_export.data_card", "what a data set is: counts, level, terms, in Markdown", data)
    diff = add("diff", "data_export.data_diff", "what one data set has and another has not", data)
    for command in (info, verify, export, card):
        command.add_argument("directory", help=EITHER)
    for side, what in (("one", "the one"), ("other", "the other")):
        diff.add_argument(side, help=f"{what}: a campaign, or CAMPAIGN@VERSION")
    diff.add_argument("--list", action="store_true", help="print the identities of frames too")
    for command in (info, verify, export, card, diff):
        command.add_argument("--json", action="store_true", help="print JSON")
    export.add_argument("output", help="file to write, e.g. .extxyz, .db, .aselmdb; nothing is overwritten")
    formats = "extxyz, ase-db, spice, ani1x, omol25, deepmd, rmd17, parquet, qcschema"
    export.add_argument("--format", help=f"one of {formats} (default: by the suffix)")
    for command in (export, card, diff):
        command.add_argument("--level", metavar="ID", help="level of theory, or the beginning of its identity")
    for command in (export, card):
        command.add_argument("--seq", type=int, help="dataset version (default: the newest)")
    card.add_argument("--output", metavar="FILE", help="write it there (default: print it)")
    split_help = "a folder: train, validation, test (the random arm) and free atoms apart, with a card"
    export.add_argument("--split", action="store_true", help=split_help)
    share_help = "of trajectories that validate (default: training.validation_share)"
    export.add_argument("--validation", type=float, metavar="SHARE", help=share_help)
    export.add_argument("--keys", choices=["ase", "mace"], default="ase", help="names of labels in extxyz")
    export.add_argument(
        "--arm",
        action="append",
        choices=["atom", "initial", "uncertain", "random", "imported"],
        help="only these (repeatable)",
    )

    repair = add("repair", "inspect.data_repair", "mend a damaged store: HEAD, metadata, rows set aside", data)
    repair.add_argument("directory", help="campaign directory")
    help_ = "go back to this dataset version where HEAD is lost and later commits cannot be read"
    repair.add_argument("--seq", type=int, metavar="VERSION", help=help_)
    repair.add_argument("--json", action="store_true", help="print JSON")

    imported = add("import", "importing.import_", "take labelled frames of a file into a campaign", data)
    imported.add_argument("campaign", help="campaign directory, or campaign file (YAML)")
    imported.add_argument("file", help="file or folder with labelled frames")
    imported.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field")
    imported.add_argument("--format", help=f"one of {formats} (default: what the file looks like)")
    imported.add_argument("--level", help="`campaign`, a name such as pbe/def2-svp, JSON, or a JSON or YAML file")
    imported.add_argument("--take", default="", metavar="LEVEL", help="only frames that state this level")
    for unit in ("energy", "force", "length", "stress"):
        imported.add_argument(f"--{unit}-unit", metavar="UNIT", help="where it is not the format's")
    for label in ("energy", "forces", "stress"):
        none = "; `none` leaves it out" if label == "stress" else ""
        imported.add_argument(f"--{label}-key", metavar="NAME", default="", help=f"where several could be meant{none}")
    imported.add_argument("--spin-is", metavar="WHAT", default="", help="what the key `spin` means: 2S+1, 2S or S")
    imported.add_argument("--skip", action="store_true", help="leave out frames that are refused, and list them")
    imported.add_argument("--charge", type=int, help="total charge of frames that state none")
    imported.add_argument("--multiplicity", type=int, help="2S + 1 of frames that state none")
    imported.add_argument("--system", metavar="NAME", help="what the frames are called (default: the file's name)")
    imported.add_argument(
        "--sampled-at",
        type=float,
        metavar="KELVIN",
        help="the frames are dynamics of this very level at equilibrium: `alsys validate` compares distances with them",
    )
    for option, what in (("licence", "of the file"), ("source", "where it can be had"), ("citation", "what to cite")):
        imported.add_argument(f"--{option}", metavar="TEXT", default="", help=f"{what}; goes into every export")
    imported.add_argument("--trust-units", action="store_true", help="take units on your word")
    imported.add_argument("--json", action="store_true", help="print JSON")

    quarantine = data.add_parser("quarantine", help="frames that could not be labelled").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listed = add("list", "curation.quarantine_list", "frames in quarantine, and why", quarantine)
    retry = add("retry", "curation.quarantine_retry", "label them after all, from the first attempt on", quarantine)
    reasons = add("export", "curation.quarantine_export", "write their structures and reasons as extxyz", quarantine)
    retract = add("retract", "curation.retract", "take labels out of the data; nothing is deleted", data)
    for command in (listed, retry, reasons, retract):
        command.add_argument("directory", help=EITHER)
    listed.add_argument("--json", action="store_true", help="print JSON")
    reasons.add_argument("output", help="file to write (.extxyz or .xyz)")
    for command in (retry, retract):
        either = "frame" if command is retry else "frame or label (as in --ack-log)"
        help_ = f"identity of a {either}, or a unique beginning of it (6 characters or more)"
        command.add_argument("frame", nargs="*", metavar="FRAME_ID" if command is retry else "ID", help=help_)
        command.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for a driver (default 60)")
    retry.add_argument("--kind", help="all that failed in this way, e.g. timeout")
    retry.add_argument("--all", action="store_true", help="all of them")
    retract.add_argument("--label", action="append", default=[], metavar="LABEL_ID", help="by label (repeatable)")
    retract.add_argument("--reason", required=True, metavar="TEXT", help="goes into the log and the report")

    models = commands.add_parser("models", help="models in the registry").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = add("list", "models.list_", "models and their versions", models)
    listing.add_argument("name", nargs="?", help="only this model, by its name or its campaign's directory")
    show = add("show", "models.show", "one version: metrics, data, aliases", models)
    show.add_argument("name", help="registered name, or campaign directory")
    show.add_argument("version", nargs="?", help="number or alias (default: champion)")
    train = add("train", "models.train", "fit to a campaign's data once more, to convergence", models)
    train.add_argument("directory", help=EITHER)
    train.add_argument(
        "--budget-s",
        type=float,
        default=3600.0,
        help="CPU seconds at most (default 3600); ends where nothing is gained",
    )
    train.add_argument("--quiet", action="store_true", help="say nothing but the result")
    promote = add("promote", "models.promote", "make a version champion in the registry", models)
    promote.add_argument("name", help="registered name, or campaign directory")
    promote.add_argument("version", help="number in the registry")
    rollback = add("rollback", "models.rollback", "make the previous champion of the registry champion again", models)
    rollback.add_argument("name", help="registered name, or campaign directory")
    release = add("release", "models.release", "let a registered name go to another campaign", models)
    release.add_argument("name", help="registered name, or campaign directory")
    publish = add("publish", "models.publish", "register a model on another server", models)
    publish.add_argument("source", help="bundle folder, campaign directory (its champion), or models:/NAME@champion")
    publish.add_argument("name", help="registered name there; one that no campaign has")
    publish.add_argument("--to", required=True, metavar="URI", help="that server: https://..., sqlite:///...")
    pull = add("pull", "models.pull", "copy a model out of a registry, for use without it", models)
    pull.add_argument("source", help="models:/NAME@champion, models:/NAME/VERSION")
    pull.add_argument("output", help="folder of the bundle; nothing is overwritten")
    for command in (publish, pull):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (listing, show, promote, rollback, release, publish, pull):
        command.add_argument("--uri", help="tracking server (default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)")
    for command in (listing, show):
        command.add_argument("--json", action="store_true", help="print JSON")

    validate = add("validate", "validate.validate", "hold a model against physics: scans, vibrations, dynamics, errors")
    validate.add_argument("directory", help="campaign directory")
    validate.add_argument("--model", default="champion", metavar="VERSION", help="number, or champion (default)")
    validate.add_argument("--only", metavar="CHECKS", help="comma-separated, e.g. parity,torsions (default: all)")
    validate.add_argument("--labels", type=int, metavar="N", help="new reference calculations at most")
    validate.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field")
    validate.add_argument("--export", metavar="FILE", help="also write all reference labels as extxyz")
    validate.add_argument("--json", action="store_true", help="print JSON")

    distil = add("distil", "distil.distil", "make one plain, fast model out of a committee or a difference", models)
    distil.add_argument("bundle", help="bundle folder, or models:/NAME@champion")
    distil.add_argument("output", help="folder of the new bundle")
    distil.add_argument("--config", required=True, help="campaign file: systems, and `model` of the new one")
    distil.add_argument("--frames", type=int, default=2000, help="frames of dynamics (default 2000)")
    distil.add_argument("--budget-s", type=float, default=1200.0, help="CPU seconds of training at most (default 1200)")
    distil.add_argument(
        "--speed-up", type=float, default=5.0, help="fewer layers where it is not so many times as fast (default 5)"
    )
    distil.add_argument("--members", type=int, choices=[1, 2], default=1, help="members of the new one (default 1)")
    distil.add_argument(
        "--temperature", type=float, action="append", help="K (repeatable; default: exploration.temperatures and above)"
    )
    distil.add_argument("--uri", help="tracking server (default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)")
    distil.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field")
    distil.add_argument("--json", action="store_true", help="print JSON")

    import_ = add("import", "distil.import_", "make a bundle out of a NequIP package", models)
    import_.add_argument("package", help="file that ends in .nequip.zip")
    import_.add_argument("output", help="folder of the new bundle")
    import_.add_argument(
        "--trust-code", action="store_true", help="such files execute their author's code: say that you trust it"
    )
    import_.add_argument(
        "--members", type=int, default=1, help="equal members, for campaigns that are to go on from it (default 1)"
    )

    export = add("export", "export.export", "write a model for use elsewhere, checked and with its own error", models)
    export.add_argument("source", help="bundle folder, campaign directory (its champion), or models:/NAME@champion")
    export.add_argument("output", help="folder or file, by what it is exported to; nothing is overwritten")
    kinds = ["bundle", "nequip-package", "ase-pt2", "torch-sim", "openmm", "ipi"]
    kinds += ["lammps-nequip", "lammps-mliap", "lammps-external", "onnx"]
    export.add_argument(
        "--to", "--format", choices=kinds, help="default: nequip-package for .nequip.zip, else bundle (docs/using.md)"
    )
    export.add_argument("--member", type=int, metavar="K", help="one member, from 0 on (default: the mean of all)")
    export.add_argument("--charge", type=int, metavar="E", help="of all that a package is used for")
    export.add_argument("--multiplicity", type=int, metavar="M", help="likewise, 2S + 1")
    export.add_argument("--uri", help="tracking server (default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)")
    export.add_argument("--json", action="store_true", help="print JSON")

    certify = add("certify", "certify.certify", "relabel published frames with a campaign's labeler and compare")
    certify.add_argument("config", help="campaign file (YAML)")
    certify.add_argument("--frames", required=True, help="extxyz with energies and forces")
    for label in ("energy", "forces"):
        certify.add_argument(f"--{label}-key", metavar="NAME", default="", help="where several could be meant")
    certify.add_argument("--n", type=int, default=10, help="frames, evenly spaced over the file (default 10)")
    certify.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field")
    certify.add_argument("--json", action="store_true", help="print JSON")

    doctor = add("doctor", "doctor.doctor", "check this machine, or also a cluster")
    doctor.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster, as in runtime.address (`auto` for here)")
    doctor.add_argument("--json", action="store_true", help="print JSON")

    watch = add("watch-node", "watch_node.watch_node", "drain this node of a Ray cluster before it is taken away")
    watch.add_argument("--address", metavar="HOST:PORT", help="of the cluster (default: RAY_ADDRESS, or Ray here)")
    when = watch.add_mutually_exclusive_group()
    when.add_argument(
        "--cloud", choices=["auto", "aws", "gcp", "azure", "none"], default="auto", help="whose notices (default auto)"
    )
    when.add_argument("--drain", action="store_true", help="now, and end when no worker is left here")
    watch.add_argument(
        "--grace-s", type=float, default=25.0, help="seconds left after SIGTERM or with --drain (default 25)"
    )

    config = commands.add_parser("config", help="about campaign files").add_subparsers(required=True, metavar="COMMAND")
    schema = add("schema", "doctor.config_schema", "every field with its type, default and meaning", config)
    schema.add_argument("--json", action="store_true", help="as JSON Schema")
    return parser


def _lazy(path: str) -> Callable[[argparse.Namespace], int]:
    module, name = path.split(".")

    def handler(args: argparse.Namespace) -> int:
        import importlib

        function = getattr(importlib.import_module(f"alsys.cli.{module}"), name)
        code: int = function(args)
        return code

    return handler
