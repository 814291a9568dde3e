"""Templates do what they are for, and nothing else, and come to an end."""

from __future__ import annotations

import time

import pytest

from modules.core.clock import SystemClock
from modules.core.errors import ValidationError
from modules.persona.profile import Example, Persona
from modules.persona.template import MAX_OUTPUT, MAX_STEPS, check_template, rendered

ADA = Persona(
    "p",
    "Ada",
    description="A mathematician",
    traits=("curious", "exact"),
    examples=(Example("What is it?", "An engine."),),
    metadata={"demographics": {"occupation": "Countess", "age": None}, "items": [1, 2]},
)


class StoppedClock(SystemClock):
    """Time that a test moves: each look at it takes *step* seconds."""

    def __init__(self, step):
        self._at, self._step = 0.0, step

    def monotonic(self):
        self._at += self._step
        return self._at


def text_of(source, persona=ADA, message="Hello", strength=1.0, clock=None):
    check_template(source)
    return rendered(source, persona, message, strength, clock=clock or SystemClock(), timeout_s=5.0)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ name }}, {{ description | lower }}: {{ message }}", "Ada, a mathematician: Hello"),
        ("{% for t in traits %}{{ loop.index }}. {{ t }}{% if not loop.last %}; {% endif %}{% endfor %}", None),
        ("{% for e in examples %}{{ e.user }} - {{ e.assistant }}{% endfor %}", "What is it? - An engine."),
        ("{{ traits | join(' and ') }} ({{ traits | length }})", "curious and exact (2)"),
        ("{{ metadata.demographics.occupation }}", "Countess"),
        ("{{ metadata.nothing | default('none') }}", "none"),
        ("{% if strength > 0.5 and backstory %}x{% elif voice is defined %}y{% else %}z{% endif %}", "y"),
        ("{{ 'strong' if strength >= 0.9 else 'weak' }}", "strong"),
        ("{% for n in metadata.items %}{{ n }}{% endfor %}", "12"),
        ("no markup at all", "no markup at all"),
        ("", ""),
    ],
)
def test_what_a_template_can_say(source, text):
    assert text_of(source) == (text if text is not None else "1. curious; 2. exact")


def test_what_a_message_holds_is_text_and_never_run():
    assert text_of("{{ message }}", message="{{ name }} {% for x in traits %}") == "{{ name }} {% for x in traits %}"


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ name['__class__'] }}",
    "{{ name|attr('__class__') }}",
    "{{ [].append.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ self }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__ }}",
    "{{ joiner }}",
    "{{ namespace() }}",
    "{{ range(10) }}",
    "{{ dict(a=1) }}",
    "{{ config }}",
    "{{ request.application }}",
    "{{ name.upper() }}",
    "{{ message.format(traits) }}",
    "{{ '%s' % name }}",
    "{{ name|format('x') }}",
    "{{ metadata['x'] }}",
    "{{ traits|map('upper')|list }}",
    "{{ traits|map(attribute='__class__')|list }}",
    "{{ traits|groupby('__class__') }}",
    "{% import 'x' as y %}",
    "{% include '/etc/passwd' %}",
    "{% extends 'x' %}",
    "{% from 'x' import y %}",
    "{% block x %}{% endblock %}",
    "{% macro m() %}{% endmacro %}",
    "{% call(x) m() %}{% endcall %}",
    "{% set x = 1 %}",
    "{% set x %}y{% endset %}",
    "{% with x = 1 %}{{ x }}{% endwith %}",
    "{% filter upper %}x{% endfilter %}",
    "{% do name %}",
    "{{ 'x' * 1000000000 }}",
    "{{ 2 ** 1000000 }}",
    "{{ name ~ name }}",
    "{{ 1 + 1 }}",
    "{{ (1, 2) }}",
    "{{ {'a': 1} }}",
    "{{ name|center(100000000) }}",
    "{{ name|replace('A', 'B') }}",
    "{{ name|indent(100000000) }}",
    "{{ name|pprint }}",
    "{{ name|tojson }}",
    "{{ traits|join(message) }}",
    "{{ traits|join('" + "x" * 21 + "') }}",
    "{% for x in traits recursive %}{{ loop(traits) }}{% endfor %}",
    "{% for x in traits if x %}{% endfor %}",
    "{% for a, b in traits %}{% endfor %}",
    "{% for message in traits %}{% endfor %}",
    "{% for loop in traits %}{% endfor %}",
    "{{ name is callable }}",
    "{{ name is sameas(name) }}",
    "{{ nobody_knows_this }}",
    "{{ name",
    "{% for %}",
    "{% if name %}",
    "{{ " + "(" * 5000 + "name" + ")" * 2000 + " }}",
    "{{ " + "not " * 1000 + "name }}",
    "{% if name %}" * 200 + "{% endif %}" * 200,
    "{% for x in traits %}" * 30 + "{% endfor %}" * 30,
    "x" * 8193,
]


@pytest.mark.parametrize("source", ESCAPES, ids=range(len(ESCAPES)))
def test_what_a_template_must_not_do_is_refused_before_it_is_stored(source):
    began = time.monotonic()
    with pytest.raises(ValidationError, match="template") as caught:
        check_template(source)
    assert caught.value.param == "template"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "source",
    [
        "{{ metadata.items.append }}",
        "{{ metadata.keys }}",
        "{{ metadata.demographics.get }}",
        "{{ traits.append }}",
        "{{ name.upper }}",
        "{{ strength.real }}",
        "{% for t in traits %}{{ loop.changed }}{% endfor %}",
        "{% for t in traits %}{{ loop.cycle }}{% endfor %}",
        "{% for c in name %}{{ c }}{% endfor %}",
        "{% for c in metadata %}{{ c }}{% endfor %}",
        "{{ traits | upper | join }}{{ metadata.nothing }}",
        "{{ strength > name }}",
    ],
)
def test_no_attribute_of_any_object_can_be_had_when_it_runs(source):
    with pytest.raises(ValidationError, match="template"):
        text_of(source)


def test_output_is_bounded():
    many = Persona("p", "Ada", traits=tuple("x" * 2000 for _ in range(50)))
    with pytest.raises(ValidationError, match=f"more than {MAX_OUTPUT}"):
        text_of("{{ traits | join }}", many)


def test_steps_are_bounded_also_where_nothing_is_written():
    many = Persona("p", "Ada", traits=tuple("x" for _ in range(50)))
    source = "{% for a in traits %}{% for b in traits %}{% for c in traits %}{% endfor %}{% endfor %}{% endfor %}"
    began = time.monotonic()
    with pytest.raises(ValidationError, match=f"more than {MAX_STEPS} times"):
        text_of(source, many)
    assert time.monotonic() - began < 20


def test_time_is_bounded():
    with pytest.raises(ValidationError, match="too long"):
        text_of("{% for t in traits %}{{ t }}{% endfor %}", clock=StoppedClock(step=3.0))
