"""Templates that shape a prompt: Jinja2 in a sandbox, cut down to what can be bounded.

A template may name what a persona has, branch, loop and use the filters of `FILTERS`. It may not call anything, reach
attributes, do arithmetic, set variables, define macros or include other templates: all of that is refused when the
template is stored, by a list of what is allowed. What is allowed is bounded when it runs: steps of loops, characters
of output, and time. Beneath that, Jinja2's own sandbox forbids what it forbids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from modules.core.clock import Clock
from modules.core.errors import ValidationError

from .profile import LIMITS, Persona

MAX_STEPS = 5_000
MAX_OUTPUT = 65_536
_MAX_DEPTH = 20
_MAX_SEPARATOR = 20

NAMES = frozenset(
    {
        "name",
        "description",
        "backstory",
        "voice",
        "traits",
        "knowledge_areas",
        "behavioral_rules",
        "examples",
        "system_prompt",
        "metadata",
        "message",
        "strength",
    }
)
FILTERS = frozenset(
    {"capitalize", "count", "d", "default", "first", "join", "last", "length", "lower", "title", "trim", "upper"}
)
_TESTS = frozenset({"defined", "none", "undefined"})
_OF_A_LOOP = frozenset({"first", "index", "index0", "last", "length", "revindex"})
_ALLOWED = (
    nodes.And,
    nodes.Compare,
    nodes.CondExpr,
    nodes.Const,
    nodes.Filter,
    nodes.For,
    nodes.Getattr,
    nodes.If,
    nodes.Name,
    nodes.Not,
    nodes.Operand,
    nodes.Or,
    nodes.Output,
    nodes.Template,
    nodes.TemplateData,
    nodes.Test,
)
_STEPS = "counted steps"  # no template can name this filter: it has a blank


def check_template(source: str) -> None:
    """Raises ValidationError, saying what in *source* is not allowed."""
    _compiled(_Sandbox(None), source)


def rendered(source: str, persona: Persona, message: str, strength: float, *, clock: Clock, timeout_s: float) -> str:
    """The text that a template gives. Raises ValidationError for a template that is not allowed, names something that
    is not there, or exceeds a bound."""
    budget = _Budget(clock, timeout_s)
    template = _compiled(_Sandbox(budget), source)
    values = {key: value for key, value in persona.to_dict().items() if key in NAMES}
    pieces: list[str] = []
    length = 0
    try:
        for piece in template.generate(**values, message=message, strength=strength):
            budget.check_time()
            length += len(piece)
            if length > MAX_OUTPUT:
                raise _refused(f"it gives more than {MAX_OUTPUT} characters")
            pieces.append(piece)
    except (TemplateError, TypeError, ValueError, RecursionError) as error:
        raise _refused(str(error)) from error
    return "".join(pieces).strip()


class _Budget:
    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._ends = clock.monotonic() + timeout_s
        self._steps = MAX_STEPS

    def counted(self, items: object) -> Iterator[Any]:
        """The items of a list, each a step. Text is no list: its characters are not looped over."""
        if not isinstance(items, list):
            raise _refused("only lists can be looped over")
        for item in items:
            self._steps -= 1
            if self._steps < 0:
                raise _refused(f"it loops more than {MAX_STEPS} times")
            self.check_time()
            yield item

    def check_time(self) -> None:
        if self._clock.monotonic() > self._ends:
            raise _refused("it takes too long")


class _Sandbox(ImmutableSandboxedEnvironment):
    def __init__(self, budget: _Budget | None) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, extensions=[])
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in FILTERS}
        self.tests = {name: self.tests[name] for name in _TESTS}
        if budget is not None:
            self.filters[_STEPS] = budget.counted
        else:
            self.filters[_STEPS] = iter

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Members of mappings, and what a loop knows of itself; no attribute of any object."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, LoopContext) and attribute in _OF_A_LOOP:
            return getattr(obj, attribute)
        missing: Undefined = self.undefined(obj=obj, name=attribute)
        return missing


def _compiled(sandbox: _Sandbox, source: str) -> Any:
    if len(source) > LIMITS["template"]:
        raise _refused(f"it has {len(source)} characters of at most {LIMITS['template']}")
    try:
        tree = sandbox.parse(source)
        _check(tree, depth=0)
        unknown = find_undeclared_variables(tree) - NAMES
        if unknown:
            raise _refused(f"it names {sorted(unknown)[0]!r}; there are {', '.join(sorted(NAMES))}")
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _STEPS, [], [], None, None, lineno=loop.lineno)
        code = sandbox.compile(tree)
        return sandbox.template_class.from_code(sandbox, code, {}, None)
    except (TemplateError, RecursionError, SyntaxError, MemoryError) as error:
        raise _refused(str(error) or type(error).__name__) from error


def _check(node: nodes.Node, *, depth: int) -> None:
    """Every node must be of an allowed kind, and used in an allowed way."""
    if not isinstance(node, _ALLOWED):
        raise _refused(f"{type(node).__name__} is not allowed in it")
    if depth > _MAX_DEPTH:
        raise _refused(f"it is nested more than {_MAX_DEPTH} deep")
    match node:
        case nodes.Name() if node.name == "self" or node.name.startswith("_"):
            raise _refused(f"{node.name!r} cannot be reached")
        case nodes.Getattr() if node.attr.startswith("_"):
            raise _refused(f"{node.attr!r} cannot be reached")
        case nodes.Filter():
            _check_filter(node)
        case nodes.Test() if node.name not in _TESTS:
            raise _refused(f"it has no test {node.name!r}")
        case nodes.For():
            _check_loop(node)
    for child in node.iter_child_nodes():
        _check(child, depth=depth + 1)


def _check_filter(node: nodes.Filter) -> None:
    if node.name not in FILTERS:
        raise _refused(f"it has no filter {node.name!r}; there are {', '.join(sorted(FILTERS))}")
    if node.kwargs or node.dyn_args or node.dyn_kwargs or len(node.args) > 1:
        raise _refused(f"the filter {node.name!r} takes one value at most, by its place")
    for argument in node.args:
        if not isinstance(argument, nodes.Const):
            raise _refused(f"what the filter {node.name!r} takes must be written out")
        if node.name == "join" and len(str(argument.value)) > _MAX_SEPARATOR:
            raise _refused(f"a separator has {_MAX_SEPARATOR} characters at most")


def _check_loop(node: nodes.For) -> None:
    if node.recursive or node.test is not None:
        raise _refused("a loop is neither recursive nor filtered")
    if not isinstance(node.target, nodes.Name) or node.target.name in NAMES | {"loop"}:
        raise _refused("a loop's variable has one name, and none that is taken")


def _refused(reason: str) -> ValidationError:
    return ValidationError(f"the template cannot be used: {reason}", param="template")
