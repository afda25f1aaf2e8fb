"""Classes that register themselves."""

from __future__ import annotations

import pytest

from vpt.sites import Registry


def test_a_class_is_found_by_its_name_and_by_text() -> None:
    rooms: Registry[object] = Registry("room", KeyError)

    @rooms.register("deep:COUNT", "tokens")
    class Deep: ...

    @rooms.register()
    class Stack: ...

    assert rooms.classes == {"Deep": Deep, "Stack": Stack}
    assert (rooms.forms["deep"].cls, rooms.forms["deep"].word) == (Deep, "count")
    assert rooms.usages() == "deep:COUNT"


def test_two_of_one_name_are_refused() -> None:
    rooms: Registry[object] = Registry("room", KeyError)
    rooms.register("deep:COUNT")(int)
    rooms.register("deep:COUNT")(int)  # the same again, as when a module is loaded anew
    with pytest.raises(TypeError, match="have one name"):
        rooms.register("deep")(float)
    with pytest.raises(TypeError, match="have one name"):
        rooms.register()(type("int", (), {}))
