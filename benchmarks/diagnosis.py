"""How well `diagnose` names what is wrong, and how quiet it is where nothing is.

    python benchmarks/diagnosis.py --out runs --mnist mnist_t10k.npz --seeds 0,1 --only healthy
    python benchmarks/diagnosis.py --out runs --seeds 0,1,2,3,4
    python benchmarks/diagnosis.py --out runs --seeds 0,1,2,3,4 --rules-only

- healthy: sound models of `diagnosis_healthy.py`, trained under a LayerStatsCallback and probed before. Each has to
  reach half of the way from a constant answer to a perfect one, or it counts as unsound and is listed. Whatever is
  found there, before or at any measured step, is a false alarm.
- faults: `diagnosis_faults.py` puts one fault at a known layer. Recall: a finding of that kind at that layer, in the
  probe or in the run. First: the first finding is that, or another name of the same fault at the same layer.
- repair: `diagnosis_repair.py` mends the faults of initialization by `repair`, on what `diagnose` finds in the
  untrained model, and trains; the accuracy relative to the sound model's from the same seed. Not with --rules-only.

What was seen of a run is kept under --out, so that --rules-only tries rules on it without training. The rules that
others have published (`diagnosis_others.py`) read the same runs.
"""

from __future__ import annotations

import argparse
import json
import re
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
from diagnosis_architectures import ARCHITECTURES, SOUND, Variant, build
from diagnosis_data import Data, load
from diagnosis_faults import Fault, at_fault, faults
from diagnosis_healthy import Case, healthy
from diagnosis_others import alarms
from diagnosis_repair import repairs
from diagnosis_runs import Observed, Run, Trainer, kept

from keras_initkit.diagnosis import Finding, diagnose

TOOLS = ("SageMaker", "AUTOTRAINER", "DeepDiagnosis", "TheDeepChecker")


class Judged(NamedTuple):
    """What was said of one run.

    Args:
        name: the model, and the fault.
        fault: the fault, or `None`.
        findings: of the probe, then of the run as it went on, each (kind, layer) once.
        others: what the published rules say.
        error: a traceback where diagnose broke.
    """

    name: str
    seed: int
    fault: Fault | None
    findings: list[Finding]
    others: set[tuple[str, str, str]]
    score: float
    chance: float
    error: str = ""


def judged(name: str, seed: int, fault: Fault | None, run: Run, model: keras.Model) -> Judged:
    """The findings of the probe of the untrained model, and of each measured step with those before it."""
    findings: dict[tuple[str, str], Finding] = {}
    error = ""
    try:
        model.set_weights(run.weights_before)
        for finding in diagnose(run.before, model=model):
            findings.setdefault((finding.kind, finding.layer), finding)
        for number in range(1, len(run.reports) + 1):
            if number == 2:
                model.set_weights(run.weights_after)
            for finding in diagnose(Observed(run.reports[:number], model)):
                findings.setdefault((finding.kind, finding.layer), finding)
    except Exception:
        error = traceback.format_exc()
    others = alarms(run.before, run.reports)
    return Judged(name, seed, fault, list(findings.values()), others, run.score, run.chance, error)


def healthy_runs(options: argparse.Namespace) -> Iterator[Judged]:
    """Every sound model from every seed."""
    for name, case in healthy().items():
        if options.names not in name or (case.data == "mnist" and options.mnist is None):
            continue
        data = load(case.data, options.mnist)
        trainer = _trainer(case, data)

        def make(seed: int, trainer: Trainer = trainer) -> Run:
            trainer.begin(seed)
            return trainer.run()

        yield from _judge(options, "healthy", name, None, trainer.model, make)
        keras.backend.clear_session()


def fault_runs(options: argparse.Namespace) -> Iterator[Judged]:
    """Every fault of every architecture from every seed; models that differ in their weights alone share one."""
    for name, architecture in ARCHITECTURES.items():
        data = load(architecture.data)
        by_variant: dict[Variant, dict[str, Fault | None]] = {SOUND: {"sound": None}}
        for label, fault in faults(name).items():
            by_variant.setdefault(fault.variant, {})[label] = fault
        for variant, labelled in by_variant.items():
            chosen = {label: fault for label, fault in labelled.items() if options.names in f"{name}, {label}"}
            if not chosen:
                continue
            model = build(name, variant)
            trainer = Trainer(model, data, epochs=4, batch_size=32)
            for label, fault in chosen.items():
                with at_fault(model, fault) as spoil:

                    def make(seed: int, fault: Fault | None = fault, trainer: Trainer = trainer) -> Run:
                        trainer.begin(seed, 1.0 if fault is None else fault.rate)
                        spoil()
                        changed = fault is not None and fault.inputs is not None
                        inputs = [fault.inputs(x) for x in (trainer.data.x, trainer.data.x_test)] if changed else []
                        return trainer.run(*inputs)

                    yield from _judge(options, "faults", f"{name}, {label}", fault, model, make)
            keras.backend.clear_session()


def _trainer(case: Case, data: Data) -> Trainer:
    model = case.build()
    model.compile(case.optimizer(), case.loss)
    return Trainer(model, data, case.epochs, case.batch_size)


def _judge(
    options: argparse.Namespace, group: str, name: str, fault: Fault | None, model: keras.Model, make: Any
) -> Iterator[Judged]:
    for seed in options.seeds:
        path = Path(options.out) / group / re.sub(r"[^\w.]+", "_", name) / f"{seed}.pickle"
        if options.rules_only and not path.exists():
            continue
        run = kept(path, lambda seed=seed: make(seed))
        yield judged(name, seed, fault, run, model)


def print_healthy(runs: list[Judged]) -> dict[str, Any]:
    """False alarms by severity, and of the published rules."""
    unsound = [run for run in runs if run.score < run.chance + 0.5 * (1 - run.chance)]
    sound = [run for run in runs if run not in unsound]
    print(f"\n{len({run.name for run in runs})} sound models, {len(runs)} runs")
    for run in unsound:
        print(f"  not sound: {run.name}, seed {run.seed}: {run.score:.3f}, a constant answer {run.chance:.3f}")
    table: dict[str, Any] = {}
    for severity in ("error", "warning", "info"):
        hit = [run for run in sound if any(f.severity == severity for f in run.findings)]
        table[severity] = len(hit) / max(len(sound), 1)
        print(f"| diagnose, {severity} | {len(hit)} of {len(sound)} runs | {table[severity]:.1%} |")
    for tool in TOOLS:
        hit = [run for run in sound if any(alarm[0] == tool for alarm in run.others)]
        kinds = Counter(kind for run in sound for kind in {alarm[1] for alarm in run.others if alarm[0] == tool})
        table[tool] = len(hit) / max(len(sound), 1)
        listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        print(f"| {tool} | {len(hit)} of {len(sound)} runs | {table[tool]:.1%} | {listed}")
    _list_alarms(sound)
    return table


def _list_alarms(runs: Iterable[Judged]) -> None:
    seeds = defaultdict(set)
    for run in runs:
        if run.error:
            print(f"  diagnose broke on {run.name}, seed {run.seed}: {run.error.splitlines()[-1]}")
        for finding in run.findings:
            seeds[run.name, finding.severity, finding.kind, finding.layer].add((run.seed, finding.step))
    for (name, *finding), where in sorted(seeds.items(), key=lambda item: item[0][1]):
        print(f"  {' '.join(finding)}: {name}; (seed, step) {sorted(where)}")


def names_fault(finding: Finding, fault: Fault, others: bool = False) -> bool:
    """Whether a finding names the fault; with `others`, under another name that fits it as well."""
    kinds = {fault.kind, *(fault.causes if others else ())}
    return finding.kind in kinds and (not fault.layers or finding.layer in fault.layers)


def print_faults(runs: list[Judged], verbose: bool) -> dict[str, Any]:
    """Recall by kind, and how often the first finding is the right one."""
    sound = {(run.name.split(", ")[0], run.seed): run for run in runs if run.fault is None}
    kinds = sorted({run.fault.kind for run in runs if run.fault is not None})
    print("\n| kind | architectures | runs | kind and layer named | first is right | harmed | "
          + " | ".join(TOOLS) + " |")  # fmt: skip
    print("|---" * (6 + len(TOOLS)) + "|")
    table: dict[str, Any] = {}
    missed = defaultdict(list)
    for kind in [*kinds, "all"]:
        chosen = [run for run in runs if run.fault is not None and kind in (run.fault.kind, "all")]
        named = [run for run in chosen if any(names_fault(f, run.fault) for f in run.findings)]
        first = [run for run in chosen if run.findings and names_fault(run.findings[0], run.fault, others=True)]
        pairs = [(run, sound.get((run.name.split(", ")[0], run.seed))) for run in chosen]
        harmed = [run for run, other in pairs if other is not None and run.score < 0.95 * other.score]
        shares = [len(part) / len(chosen) for part in (named, first, harmed)]
        for tool in TOOLS:
            hits = [run for run in chosen if any(_is_named_by(alarm, run.fault, tool) for alarm in run.others)]
            shares.append(len(hits) / len(chosen))
        architectures = len({run.name.split(", ")[0] for run in chosen})
        print(f"| {kind} | {architectures} | {len(chosen)} | " + " | ".join(f"{s:.0%}" for s in shares) + " |")
        table[kind] = dict(zip(("named", "first", "harmed", *TOOLS), shares, strict=True))
        if kind != "all":
            for run in chosen:
                right = (run in named, run in first)
                if not all(right):
                    seen = [
                        f"{f.kind}@{f.layer}" + f"<{f.consequence_of}" * bool(f.consequence_of) for f in run.findings
                    ]
                    missed[run.name, right, run.error[-200:]].append((run.seed, seen[:6]))
    for (name, (named_it, first_is), error), where in missed.items() if verbose else ():
        verdict = "missed" if not named_it else "not first" if not first_is else ""
        print(f"  {verdict}: {name}; seeds {[seed for seed, _ in where]}: {where[0][1]} {error}")
    print("sound versions:")
    _list_alarms(sound.values())
    return table


def _is_named_by(alarm: tuple[str, str, str], fault: Fault, tool: str) -> bool:
    return alarm[0] == tool and alarm[1] == fault.kind and (not fault.layers or alarm[2] in fault.layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="diagnosis_runs", help="where runs are kept")
    parser.add_argument("--only", choices=("healthy", "faults", "repair"))
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2, 3, 4])
    parser.add_argument("--mnist", help="an .npz file with x (examples, 28, 28) and y")
    parser.add_argument("--names", default="", help="only models and faults whose name has this in it")
    parser.add_argument("--rules-only", action="store_true", help="nothing is trained: only runs that are kept")
    parser.add_argument("--quiet", action="store_true", help="tables alone, without the list of what was missed")
    parser.add_argument("--json", help="where the tables go")
    options = parser.parse_args()
    tables: dict[str, Any] = {}
    if options.only in (None, "healthy"):
        tables["healthy"] = print_healthy(list(healthy_runs(options)))
    if options.only in (None, "faults"):
        tables["faults"] = print_faults(list(fault_runs(options)), not options.quiet)
    if options.only in (None, "repair") and not options.rules_only:
        tables["repair"] = repairs(options.seeds, options.names, not options.quiet)
    if options.json:
        Path(options.json).write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
