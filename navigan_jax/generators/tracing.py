"""Finds out, from a traced function, which weights it reads and how large their outputs are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr


def trace_reads(
    function: Callable[[dict[str, Any], Any], Any], weights: Mapping[str, Any], carry: Any
) -> dict[str, int]:
    """Returns {name: side} of the weights that `function(weights, carry)` reads, in that order.

    weights, carry: arrays, or their shapes. side: the height in pixels of the output of the first
    convolution or matrix product that takes the weight; 1 for an output without pixels, 0 if no
    such operation takes it. Nothing is computed.
    """
    traced = jax.make_jaxpr(function)(dict(weights), carry)
    names = sorted(weights)  # the order in which JAX flattens a dict
    found = {}
    for index, name in enumerate(names):
        if (place := _first_read(traced, index)) is not None:
            found[name] = place, _side_of(traced, {index}) or 0
    return {name: found[name][1] for name in sorted(found, key=lambda name: found[name][0])}


def _inner(equation: Any) -> ClosedJaxpr | None:
    """Returns the function that an equation calls with its own operands, if it calls one."""
    for value in equation.params.values():
        is_closed = isinstance(value, ClosedJaxpr)
        if is_closed and len(value.jaxpr.invars) == len(equation.invars):
            return value
    return None


def _first_read(traced: ClosedJaxpr, index: int) -> tuple[int, ...] | None:
    """Returns where an argument is read first: the numbers of nested equations, to be compared."""
    variable = traced.jaxpr.invars[index]
    for number, equation in enumerate(traced.jaxpr.eqns):
        for place in _places(equation.invars, {variable}):
            inner = _inner(equation)
            if inner is None:
                return (number,)
            if (nested := _first_read(inner, place)) is not None:
                return number, *nested
    is_returned = any(variable is out for out in traced.jaxpr.outvars)
    return (len(traced.jaxpr.eqns),) if is_returned else None


def _side_of(traced: ClosedJaxpr, indices: set[int]) -> int | None:
    """Returns the side of the first output that is linear in one of the arguments, or None."""
    derived = {traced.jaxpr.invars[index] for index in indices}
    for equation in traced.jaxpr.eqns:
        places = _places(equation.invars, derived)
        if not places:
            continue
        shape = equation.outvars[0].aval.shape
        if equation.primitive.name == "conv_general_dilated":
            return int(shape[equation.params["dimension_numbers"].out_spec[2]])
        if equation.primitive.name == "dot_general":
            return int(shape[1]) if len(shape) == 4 else 1
        inner = _inner(equation)
        if inner is not None and (side := _side_of(inner, set(places))) is not None:
            return side
        derived.update(equation.outvars)
    return None


def _places(operands: Sequence[Any], variables: set[Any]) -> list[int]:
    """Returns the places of the variables among the operands; literals have no identity."""
    return [
        place
        for place, operand in enumerate(operands)
        if any(operand is variable for variable in variables)
    ]
