"""A measurement of a stack with any numbers, for the tests of what follows from them."""

from spf_lora.evaluate.incremental_result import Incremental, Meeting, Order
from spf_lora.evaluate.result import Figure


def figure(value):
    return Figure(value, value, value, 4)


def made_up(response, pollution, together=(("a", "b", 0.8, 0.9),), alone_pollution=(0.2, 0.2)):
    """A measurement of two adapters with the numbers given."""
    rows = tuple(tuple(None if v is None else figure(v) for v in row) for row in response)
    dirt = tuple(tuple(None if v is None else figure(v) for v in row) for row in pollution)
    order = Order(("a", "b"), rows, dirt, (figure(0.1), figure(0.3)))
    return Incremental(
        name="pair",
        base_id="x",
        adapters=("a", "b"),
        attributes=("beard", "hat"),
        strengths=(1.0, 1.0),
        prompts=4,
        seeds=1,
        sampler={},
        control=(figure(0.1), figure(0.0)),
        alone=(figure(0.9), figure(0.8)),
        alone_pollution=tuple(map(figure, alone_pollution)),
        orders=(order,),
        cross_talk=((0.5, 0.0), (0.1, 0.4)),
        together=tuple(Meeting((a, b), (x, y)) for a, b, x, y in together),
        overlap=(({"cosine": 1.0},) * 2,) * 2,
        seconds=1.0,
    )
