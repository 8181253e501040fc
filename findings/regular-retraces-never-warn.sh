#!/usr/bin/env bash
# A function that is traced anew in every tenth call for ever is never warned about; in every third, twice at most.
#
# One would guess: TensorFlow's warning about retracing appears sooner or later when a function keeps retracing.
#
# What happens: the detector looks at the last few calls only and forgets, so thirty retraces in three hundred calls
# pass in silence. Where it warns, it stops after two messages per place of definition, whatever follows.
#
# Why it matters: no warning does not mean no retraces, and two warnings may stand for hundreds. Only the count of
# the traces (experimental_get_tracing_count, or the `tracing_count` of the calls in a profile) tells.
#
# TensorFlow 2.21.0.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   a new argument in every 3th call: 300 calls, 100 traces, 2 warnings
#   a new argument in every 10th call: 300 calls, 30 traces, 0 warnings
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'tensorflow-cpu==2.21.0' 'keras==3.15.1'

cat > program.py <<'PROGRAM'
import logging

import tensorflow as tf

CALLS = 300
messages = []


class Listener(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())


tf.get_logger().handlers = [Listener()]


@tf.function
def every_third(x, number):
    return x * number


@tf.function
def every_tenth(x, number):
    return x + number


def run(function, period):
    messages.clear()
    for call in range(CALLS):
        function(tf.constant(1.0), float(call // period))
    warnings = sum("retracing" in message for message in messages)
    traces = function.experimental_get_tracing_count()
    print(f"a new argument in every {period}th call: {CALLS} calls, {traces} traces, {warnings} warnings")
    return traces, warnings


assert run(every_third, 3) == (100, 2)
assert run(every_tenth, 10) == (30, 0)
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
