"""Edits are typed: each is read as it was written, and a key that its kind does not know is never passed over."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphlens.children.messages import Apply, MessageError, from_line, to_line
from graphlens.errors import RewriteError, TargetError
from graphlens.ir.analysis import Fix
from graphlens.ir.codec import MismatchError
from graphlens.ir.document import from_json, to_json
from graphlens.ir.edit_data import from_data, own_edits, to_data, typed
from graphlens.ir.edits import (
    EVERYWHERE,
    ConstantToVariable,
    FoldAffine,
    InputEdit,
    JitCompile,
    Ops,
    OtherEdit,
    RemoveCasts,
    ScriptSetting,
    SessionSetting,
    SinkReshape,
    Where,
)
from graphlens.plugins import PluginError
from tests import sample_document

KINDS = sorted(own_edits())
NAMES = st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple)
OPS = st.builds(Ops, NAMES, st.none() | st.just(()) | NAMES) | st.builds(Ops, st.just(()), NAMES)
SETTINGS = st.builds(
    SessionSetting,
    st.dictionaries(st.text(), st.text(), max_size=2),
    st.dictionaries(st.sampled_from(["intra_op", "inter_op"]), st.integers(0, 64)),
)
st.register_type_strategy(Ops, OPS)


def any_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Edits of one kind, with and without each of their fields."""
    if kind is SessionSetting:
        return SETTINGS
    hints = get_type_hints(kind)
    return st.builds(kind, **{one.name: st.from_type(hints[one.name]) for one in fields(kind)})


ANY = st.one_of(*map(any_of, own_edits().values())) | st.builds(
    OtherEdit, st.text().filter(lambda kind: kind not in own_edits()), st.dictionaries(st.just("layers"), st.integers())
)


@given(ANY)
def test_an_edit_is_read_as_it_was_written(edit: Any) -> None:
    assert from_data(json.loads(json.dumps(to_data(edit)))) == edit


@given(ANY)
def test_an_edit_arrives_in_a_child_as_it_was_sent(edit: Any) -> None:
    sent = Apply("fixed", ((edit,), ()))
    assert from_line(to_line(sent), [Apply]) == sent


WRITTEN: list[tuple[dict[str, Any], Any]] = [
    ({"edit": "jit-compile"}, JitCompile(EVERYWHERE)),
    ({"edit": "remove-casts", "ops": ["a", "b"]}, RemoveCasts(Ops(("a", "b")))),
    ({"edit": "sink-reshape", "traced": ["a"]}, SinkReshape(Ops(traced=("a",)))),
    (
        {"edit": "fold-affine", "base": "c", "ops": ["m"], "traced": [], "freeze": False},
        FoldAffine("c", Ops(("m",), traced=()), freeze=False),
    ),
    ({"edit": "constant-to-variable", "ops": ["t"]}, ConstantToVariable(Ops(("t",)))),
    ({"edit": "session-setting", "environment": {"A": "1"}}, SessionSetting({"A": "1"})),
    (
        {"edit": "script-setting", "option": "steps_per_execution", "value": "8"},
        ScriptSetting("steps_per_execution", "8"),
    ),
    ({"edit": "acme-widen", "channels": 8}, OtherEdit("acme-widen", {"channels": 8})),
]


@pytest.mark.parametrize(("data", "edit"), WRITTEN, ids=lambda one: getattr(one, "kind", ""))
def test_documents_name_edits_as_they_always_did(data: dict[str, Any], edit: Any) -> None:
    assert to_data(edit) == data
    assert list(to_data(edit)) == list(data)
    assert from_data(data) == edit


def test_the_one_edit_that_named_an_op_where_all_others_name_ops_is_still_read() -> None:
    assert from_data({"edit": "constant-to-variable", "op": "t"}) == ConstantToVariable(Ops(("t",)))
    with pytest.raises(MismatchError, match="'op' is no key of it"):
        from_data({"edit": "constant-to-variable", "op": "t", "ops": ["u"]})


def test_the_ops_are_those_of_the_traced_graph_where_they_are_known() -> None:
    assert Ops(("executed",), traced=("written",)).names == ("written",)
    assert Ops(("executed",), traced=()).names == Ops(("executed",)).names == ("executed",)


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_key_is_an_error_that_names_the_key_and_the_edit(kind: str) -> None:
    with pytest.raises(MismatchError, match=f"is no '{kind}': 'opss' is no key of it"):
        from_data({"edit": kind, "opss": ["a"]})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"edit": "remove-casts", "opps": ["a"]}, "'opps' is no key of it; did you mean 'ops'?"),
        ({"edit": "remove-casts", "ops": []}, "is no 'remove-casts': names no op"),
        ({"edit": "remove-casts", "ops": [], "traced": []}, "names no op"),
        ({"edit": "remove-casts", "ops": "a"}, """'ops' is "a", expected array"""),
        ({"edit": "remove-casts", "ops": ["a", 7]}, "'ops[1]' is 7, expected string"),
        ({"edit": "remove-casts", "ops": None}, "'ops' is null, expected array"),
        ({"edit": "constant-to-variable"}, "is no 'constant-to-variable': 'ops' is missing"),
        ({"edit": "place-ops", "ops": ["a"]}, "is no 'place-ops': 'device' is missing"),
        ({"edit": "change-dtype", "from": "float64"}, "is no 'change-dtype': 'to' is missing"),
        ({"edit": "fold-affine", "weights": "somewhere"}, "expected one of constant, variable"),
        ({"edit": "session-setting", "threads": {"gpu": 1}}, "is no 'session-setting': knows no thread pool 'gpu'"),
        ({"ops": ["a"]}, "expected an object whose 'edit' says what kind of edit it is"),
        ({"edit": 7}, "expected an object whose 'edit' says what kind of edit it is"),
        ("jit-compile", "expected an object whose 'edit' says what kind of edit it is"),
    ],
)
def test_an_edit_that_does_not_fit_its_kind_is_refused_in_words(data: Any, why: str) -> None:
    with pytest.raises(MismatchError) as refused:
        from_data(data)
    assert why in str(refused.value)


def test_no_names_are_not_everywhere() -> None:
    """A rule that found nothing and says so all the same must not edit the whole program."""
    with pytest.raises(ValueError, match="names no op"):
        RemoveCasts(Ops(()))


def test_a_name_is_not_taken_for_the_names_of_its_letters() -> None:
    with pytest.raises(TypeError, match="ops are named in tuples, and not by 'cast'"):
        RemoveCasts(Ops("cast"))  # type: ignore[arg-type]


def with_edit(edit: Any) -> Any:
    document = sample_document.RICH
    finding = replace(document.findings[0], fix=Fix("do it", "exact", (edit,)))
    return replace(document, findings=(finding,))


def test_a_misspelt_key_in_an_analysis_is_told_with_its_place() -> None:
    text = to_json(with_edit(RemoveCasts(Ops(("cast",)))))
    assert from_json(text).findings[0].fix.edits == (RemoveCasts(Ops(("cast",))),)
    with pytest.raises(TargetError, match=r"findings\[0\]\.fix\.edits\[0\] is no 'remove-casts': 'op' is no key of it"):
        from_json(text.replace('"ops": ["cast"]', '"op": ["cast"]'))


def test_an_analysis_with_an_edit_of_an_unknown_plug_in_is_read_all_the_same() -> None:
    text = to_json(with_edit(OtherEdit("acme-widen", {"channels": 8})))
    assert from_json(text).findings[0].fix.edits == (OtherEdit("acme-widen", {"channels": 8}),)


def test_a_misspelt_key_in_a_message_is_told_with_its_place() -> None:
    line = to_line(Apply("fixed", ((RemoveCasts(Ops(("cast",))),),)))
    with pytest.raises(MessageError, match=r"edits\[0\]\[0\] is no 'remove-casts': 'opss' is no key of it"):
        from_line(line.replace('"ops"', '"opss"'), [Apply])


def test_a_dictionary_is_no_edit() -> None:
    with pytest.raises(TypeError, match="an edit is a dataclass with a kind"):
        Fix("do it", "exact", ({"edit": "remove-casts"},))  # type: ignore[arg-type]


# -- what is applied ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WidenChannels:
    """As a plug-in would bring it."""

    kind: ClassVar[str] = "acme-widen-channels"
    where: Where
    by: int = 8


def test_the_edit_of_a_plug_in_is_written_and_read_like_any_other() -> None:
    everywhere = WidenChannels(EVERYWHERE)
    assert to_data(everywhere) == {"edit": "acme-widen-channels"}
    assert typed(OtherEdit("acme-widen-channels"), WidenChannels) == everywhere
    edit = WidenChannels(Ops(("conv",)), 16)
    data = {"edit": "acme-widen-channels", "ops": ["conv"], "by": 16}
    assert to_data(edit) == data
    arrived = from_data(data)
    assert isinstance(arrived, OtherEdit)
    assert typed(arrived, WidenChannels) == edit
    with pytest.raises(MismatchError, match="is no 'acme-widen-channels': 'opss' is no key of it; did you mean 'ops'"):
        typed(OtherEdit("acme-widen-channels", {"opss": ("conv",)}), WidenChannels)


@pytest.mark.tf
def test_each_kind_of_edit_has_a_rewrite_and_each_rewrite_its_kind() -> None:
    """All but those that change no graph of a program."""
    from graphlens.tf.rewrite.registry import rewrites

    of_input = get_args(InputEdit)
    assert {kind: made.edit for kind, made in rewrites().items()} == {
        kind: edit for kind, edit in own_edits().items() if edit not in (SessionSetting, ScriptSetting, *of_input)
    }


@pytest.mark.tf
def test_a_rewrite_has_to_say_which_edit_it_carries_out() -> None:
    from graphlens.tf.rewrite import rewrite

    def widen(draft: Any, edit: WidenChannels) -> None: ...

    def of_anything(draft: Any, edit: Any) -> None: ...

    assert rewrite(widen).edit is WidenChannels
    with pytest.raises(TypeError, match="of_anything must say by its second argument's annotation"):
        rewrite(of_anything)


@pytest.mark.tf
def test_a_misspelt_key_of_a_plug_ins_edit_is_refused_where_it_is_applied() -> None:
    from graphlens.tf.rewrite import Rewrite, registry

    planted = Rewrite(WidenChannels, lambda draft, edit: None)
    known = registry._known(OtherEdit(WidenChannels.kind, {"ops": ("conv",)}), planted)
    assert known == WidenChannels(Ops(("conv",)))
    with pytest.raises(RewriteError, match="the edit is no 'acme-widen-channels': 'opss' is no key of it"):
        registry._known(OtherEdit(WidenChannels.kind, {"opss": ("conv",)}), planted)


# -- plug-ins -------------------------------------------------------------------------------------------------------

DOCUMENTED = Path(__file__).parents[1] / "docs" / "plugins.md"


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What the entry points of the group ``graphlens.rewrites`` load; fill it before asking for the rewrites."""
    from graphlens.tf.rewrite import registry

    loaded: list[object] = []

    def load_group(group: str) -> Iterator[object]:
        assert group == "graphlens.rewrites"
        for item in loaded:
            if isinstance(item, Exception):
                raise item
            yield item

    monkeypatch.setattr(registry, "load_group", load_group)
    registry.rewrites.cache_clear()
    yield loaded
    registry.rewrites.cache_clear()


@pytest.fixture
def documented(plugins: list[object], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The edit and the rewrite that the documentation of plug-ins shows, installed; for blurs of TensorFlow's own."""
    text = DOCUMENTED.read_text(encoding="utf-8")
    for name in ("acme_edits", "acme_rewrites"):
        (source,) = re.findall(rf'^```python\n("""{name}\.py""".*?)^```$', text, re.MULTILINE | re.DOTALL)
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source.replace("AcmeBlur", "Softplus"), name, "exec"), vars(module))
    plugins.append(module)
    return sys.modules["acme_edits"]


@pytest.mark.tf
def test_the_documented_rewrite_carries_out_the_documented_edit(documented: ModuleType, lab: Any) -> None:
    import tensorflow as tf

    traced = lab.trace(lambda x: tf.nn.relu(tf.nn.softplus(x, name="blur")), lab.random(2, 3))

    def types(edit: Any) -> Any:
        return lab.types(lab.rewrite.apply(traced.program, [edit]))

    some = documented.SkipBlur(Ops(("blur",)))
    assert to_data(some) == {"edit": "acme-skip-blur", "ops": ["blur"]}
    for edit in (some, from_data(to_data(some)), documented.SkipBlur(EVERYWHERE)):
        assert types(edit) == {"Placeholder": 1, "Relu": 1, "Identity": 1}
    with pytest.raises(RewriteError, match="there are 1 blurs"):
        types(OtherEdit("acme-skip-blur", {"at_most": 0}))
    for wrong, why in (("opps", "'opps' is no key of it; did you mean 'ops'"), ("at_most", "expected integer")):
        with pytest.raises(RewriteError, match=f"the edit is no 'acme-skip-blur': .*{why}"):
            types(OtherEdit("acme-skip-blur", {wrong: ("blur",)}))


@pytest.mark.tf
def test_a_plug_in_takes_over_no_rewrite_of_this_package_nor_of_another(plugins: list[object]) -> None:
    from graphlens.tf.rewrite import Rewrite
    from graphlens.tf.rewrite.registry import rewrites

    first, second = (Rewrite(WidenChannels, lambda draft, edit: None) for _ in range(2))
    plugins += [Rewrite(FoldAffine, lambda draft, edit: None), first, SimpleNamespace(again=first)]
    assert rewrites()["acme-widen-channels"] is first
    assert rewrites()["fold-affine"].change.__module__ == "graphlens.tf.rewrite.affine"
    rewrites.cache_clear()
    plugins.append(second)
    with pytest.raises(RewriteError, match="two rewrites carry out 'acme-widen-channels'"):
        rewrites()


@pytest.mark.tf
def test_a_plug_in_that_cannot_be_loaded_is_named(plugins: list[object]) -> None:
    from graphlens.tf.rewrite.registry import rewrites

    plugins.append(PluginError("plug-in 'acme' of 'acme-rewrites' failed to load (boom); update or uninstall it"))
    with pytest.raises(RewriteError, match="acme-rewrites"):
        rewrites()
