"""One page of all claims at one scale, from the cells that are there, and a summary of each claim beside its cells."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from benchmarks.claims.a_generalisation import CLAIMANT
from benchmarks.claims.cells import Cell, claim_command, missing, records, summarise
from benchmarks.claims.data import held_out
from benchmarks.claims.findings import NOT_YET, Report, Verdict
from benchmarks.claims.prior import dreams, prior_folder
from benchmarks.claims.scales import NANO, Scale
from benchmarks.claims.training import last_checkpoint
from benchmarks.result_rows import days
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.page import Command, DreamPanel, Headline, NumberTable, ReportData, write_page
from lerobot_wam.report.pictures import dream_panel

_DREAMS = 2


def write(scale: Scale, claims: Mapping[str, str]) -> Path:
    """Write the page and the summaries of the claims that have a cell; returns the page's path.

    Args:
        scale: Whose cells.
        claims: Key of a claim -> its module in this package.
    """
    reports: list[Report] = []
    tables: list[NumberTable] = []
    commands: list[Command] = []
    found: dict[str, dict[str, Any]] = {}
    for key, name in claims.items():
        module = import_module(f"benchmarks.claims.{name}")
        cells = module.cells(scale)
        measured = records(scale, cells)
        report = module.report(scale, measured)
        reports.append(report)
        if measured:
            found[key] = summarise(scale, key, report, measured)
            note = _source(found[key])
            tables += [
                replace(table, title=f"{module.TITLE}: {table.title}", note=f"{table.note} {note}".strip())
                for table in report.tables
            ]
        commands.append(_command(scale, key, module.TITLE, cells))
    newest = max(found.values(), key=lambda record: record["date"].split("/")[-1], default={})
    findings = [finding for report in reports for finding in report.findings]
    verdicts = [finding.verdict for finding in findings]
    data = ReportData(
        title=f"The claims of World Action Models, at {scale.name} scale",
        lead="The claims of the paper, tested on a tabletop with four simulated arms. The goals were fixed beforehand, "
        "except where a claim says what it was asked after, and whatever comes out is published: a claim that does not "
        "hold at this size is a finding.",
        headlines=[
            Headline(str(verdicts.count(verdict)), verdict)
            for verdict in (*get_args(Verdict), NOT_YET)
            if verdict != NOT_YET or NOT_YET in verdicts
        ],
        findings=findings,
        tables=tables,
        dreams=_dreams(scale),
        environment=newest.get("machine", {}) | newest.get("versions", {}),
        commands=[*commands, Command("This page", claim_command(scale, "page"))],
        notes=[
            "Success is that of the last checkpoint, in claim C of the one with the least error on held-out play; none "
            "was chosen by success.",
            "Intervals of success are over episodes alone, those of ratios and differences over scenes and trainings.",
            "Machine and versions are those of the claim that has the newest cell; every cell's file has its own.",
        ],
    )
    return write_page(data, scale.outputs / "page.html")


def _source(record: Mapping[str, Any]) -> str:
    """Where a claim's numbers come from."""
    return f"{record['command']}, cells: {record['metrics']['cells']}, {days(record)}, commit {record['commit']}."


def _command(scale: Scale, claim: str, title: str, cells: Sequence[Cell]) -> Command:
    """What measures a claim, and which of its cells are missing."""
    left = [cell.name for cell in missing(scale, cells)]
    command = claim_command(scale, claim)
    comment = f"\n# missing: {', '.join(left)}" if left else ""
    return Command(f"{title}: {len(cells) - len(left)} of {len(cells)} cells measured", command + comment)


def _dreams(scale: Scale) -> list[DreamPanel]:
    """Dreams of the prior, and of a policy that began as it: of tasks that both saw, in scenes that neither did."""
    prior = prior_folder(scale, NANO)
    begun = f"{CLAIMANT}_{NANO}-{scale.few}_labels-[0-9]*_steps-no_video-{prior.name}"
    policies = sorted(scale.outputs.glob(f"policies/{begun}/seed_*"))
    trainings = [("The prior", prior)]
    trainings += [("Ours, from the prior", folder / "training") for folder in policies[:1]]
    panels: list[DreamPanel] = []
    for who, folder in trainings:
        checkpoint = last_checkpoint(folder)
        if checkpoint.is_dir():
            policy = WAMPolicy.from_pretrained(checkpoint)
            root = held_out(scale, scale.seen, "unseen")
            shown = dreams(policy, root, min(_DREAMS, scale.held_out))
            panels += [dream_panel(result, f"{who}: {result.task}") for result in shown]
    return panels
