"""One finding for each verdict of a proof, with the numbers that each has; their facts are invented."""

from __future__ import annotations

from dataclasses import replace

from graphlens.ir.analysis import Figure, Proof
from tests.sample_document import BATCH_NORM_FIGURE, BATCH_NORM_OPS, HIGH, RICH

COMMAND = "graphlens analyze 'my models/net' --signature predict --select GL203"

FIGURE_AFTER = Figure(
    "executed",
    tuple(replace(node, self_ns=None) for node in BATCH_NORM_FIGURE.nodes if node.role == "context"),
    ((BATCH_NORM_FIGURE.nodes[0].name, BATCH_NORM_FIGURE.nodes[4].name, "data"),),
)

PROVEN = Proof(
    "proven",
    "measured faster: wall time 1.60x [1.53, 1.79], CPU time 1.63x [1.57, 1.67], clear of the noise of A against A",
    speedup=1.6, ci95=(1.53, 1.79), pairs=60, aa_ci95=(0.96, 1.058), max_abs_diff=2.98e-7, max_rel_diff=5.713e-7,
    tolerance=1e-5, cpu_speedup=1.63, cpu_ci95=(1.57, 1.67), aa_cpu_ci95=(0.984, 1.052), before_ns=24_300_000,
    after_ns=16_200_000, cpu_before_ns=25_500_000, cpu_after_ns=16_500_000, first_call_ns=516_000_000, spent_s=13.8,
    output="output_0, before its last squashing op", output_dtype="float32", expected_share=0.31, command=COMMAND,
    parts=("GL203#1",),
)  # fmt: skip

VERDICTS = {
    "proven": PROVEN,
    "refuted": Proof(
        "refuted",
        "applied, and it is slower here: wall time 0.08x [0.07, 0.09], CPU time 0.12x [0.11, 0.14]",
        speedup=0.08, ci95=(0.07, 0.09), pairs=12, aa_ci95=(0.98, 1.02), max_abs_diff=0.0, max_rel_diff=0.0,
        tolerance=0.0, cpu_speedup=0.12, cpu_ci95=(0.11, 0.14), aa_cpu_ci95=(0.99, 1.01), before_ns=12_000_000,
        after_ns=150_000_000, cpu_before_ns=12_100_000, cpu_after_ns=100_000_000, first_call_ns=4_100_000_000,
        spent_s=9.0, output="logits", output_dtype="int32", command=COMMAND,
    ),
    "inconclusive": Proof(
        "inconclusive",
        "neither a gain nor its absence is shown: wall time 1.04x [0.97, 1.11]",
        speedup=1.04, ci95=(0.97, 1.11), pairs=60, before_ns=12_000_000, after_ns=11_500_000, command=COMMAND,
    ),
    "changes-numbers": Proof(
        "changes-numbers",
        "measured faster: wall time 1.62x [1.55, 1.70]; but outputs differ: 'logits' (float64) by 0.0027, which is "
        "0.0009 of its largest value where 1e-12 is allowed; applied only where --rtol allows that",
        speedup=1.62, ci95=(1.55, 1.7), pairs=48, aa_ci95=(0.97, 1.03), max_abs_diff=2.7e-3, max_rel_diff=9.1e-4,
        tolerance=1e-12, before_ns=30_000_000, after_ns=18_500_000, output="logits", output_dtype="float64",
        command=COMMAND, floor_rel_diff=3e-14, floor_from="1 thread for an op",
    ),
    "failed": Proof(
        "failed",
        "output 'logits' differs by 0.31 relative, with 1e-05 allowed for float32",
        max_abs_diff=4.2, max_rel_diff=0.31, tolerance=1e-5, output="logits", output_dtype="float32", command=COMMAND,
    ),
    "not-run": Proof("not-run", "the time budget for proofs was spent before its turn; raise --time-budget"),
}  # fmt: skip

ALL = replace(
    RICH,
    findings=tuple(
        replace(HIGH, proof=proof, shares_ops_with=(), nodes=BATCH_NORM_OPS[:2], figure_after=FIGURE_AFTER)
        for proof in VERDICTS.values()
    ),
    joint_proof=PROVEN,
)
TOGETHER = replace(ALL, joint_proof=replace(PROVEN, parts=("GL203#1", "GL207#2"), speedup=1.9, ci95=(1.8, 2.0)))
