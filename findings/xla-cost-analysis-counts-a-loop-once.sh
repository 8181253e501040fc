#!/usr/bin/env bash
# XLA's cost analysis counts the body of a loop once, however often the loop runs.
#
# One would guess: the FLOPs that a compiled program states for itself are those that it will execute; the length of a
# lax.scan is a constant of the program, so that the count is known.
#
# What happens: a scan of 1, 2, 10 and 100 rounds has the same "flops" and "bytes accessed" (up to the loop's counter).
# The same work unrolled is counted in full.
#
# Why it matters: recurrent models, scanned transformer layers and gradient accumulation are loops; utilization and
# rooflines from cost_analysis() are too low by the number of rounds. The trip count has to be taken from the
# loop's condition (the optimized HLO has known_trip_count) and multiplied.
#
# JAX 0.10.2 (XLA:CPU); the peer whose numbers a TensorFlow profile is compared with.
#
# Seen on 2026-11-28 (Linux x86-64, 2 cores, Python 3.11):
#   rounds (1, 2, 10, 100): one product is 524288 FLOPs
#   scan:     ['1.00', '1.00', '1.00', '1.00'] products counted
#   unrolled: ['1.00', '2.00', '10.00', '100.00']
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q 'jax==0.10.2' 'jaxlib==0.10.2'

cat > program.py <<'PROGRAM'
import jax
import jax.numpy as jnp

ROUNDS = (1, 2, 10, 100)


def scanned(rounds):
    return lambda x: jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ carry), None), x, None, length=rounds)[0]


def unrolled(rounds):
    def function(x):
        for _ in range(rounds):
            x = jnp.tanh(x @ x)
        return x

    return function


def flops(function):
    return jax.jit(function).lower(jnp.ones((64, 64))).compile().cost_analysis()["flops"]


once = 2 * 64**3
loop = [flops(scanned(rounds)) for rounds in ROUNDS]
flat = [flops(unrolled(rounds)) for rounds in ROUNDS]
print(f"rounds {ROUNDS}: one product is {once} FLOPs")
print(f"scan:     {[f'{value / once:.2f}' for value in loop]} products counted")
print(f"unrolled: {[f'{value / once:.2f}' for value in flat]}")
assert all(0.99 < value / once < 1.1 for value in loop), loop
assert all(0.99 < value / once / rounds < 1.1 for value, rounds in zip(flat, ROUNDS)), flat
PROGRAM

export TF_CPP_MIN_LOG_LEVEL=3
venv/bin/python program.py
