"""Registering a class under the words by which files and people name it, where it is written."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
C = TypeVar("C")


@dataclass(frozen=True)
class Form(Generic[T]):
    """A short text that makes an object. usage: how it is written ("deep:COUNT")."""

    cls: type[T]
    usage: str

    @property
    def word(self) -> str:
        """What follows the colon, in small letters; "" for nothing."""
        return self.usage.partition(":")[2].lower()


class Registry(Generic[T]):
    """The classes of one room. Each registers itself where it is written, so that a new one is one
    file.

    what: what they are, for messages. error: what is raised for a name that is not known. classes:
        by their own name, as a file names them. forms: by the short name of a text. about: what
        each class is, in one phrase.
    """

    def __init__(self, what: str, error: type[Exception]) -> None:
        self.what = what
        self.error = error
        self.classes: dict[str, type[T]] = {}
        self.forms: dict[str, Form[T]] = {}
        self.about: dict[str, str] = {}

    def register(self, usage: str = "", does: str = "") -> Callable[[type[C]], type[C]]:
        """Decorates a class that files may name, and that `usage`, where there is one, makes."""

        def keep(cls: type[C]) -> type[C]:
            name = usage.partition(":")[0]
            named = [self.classes.get(cls.__name__), getattr(self.forms.get(name), "cls", None)]
            for known in named:
                if known is not None and f"{known}" != f"{cls}":
                    raise TypeError(f"{cls} and {known} have one name.")
            self.classes[cls.__name__] = cls  # type: ignore[assignment]
            self.about[cls.__name__] = does
            if name:
                self.forms[name] = Form(cls, usage)  # type: ignore[arg-type]
            return cls

        return keep

    def named(self, name: str) -> type[T]:
        """The class of this name, which a file says. Raises `error` for none that is known."""
        if name not in self.classes:
            known = ", ".join(self.classes)
            raise self.error(f"Found a {self.what} called {name!r}; known are {known}.")
        return self.classes[name]

    def attribute(self, module: str, name: str) -> type[T]:
        """The class of this name as an attribute of its room."""
        if name not in self.classes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return self.classes[name]

    def usages(self) -> str:
        """All texts, for help and errors: "border:WIDTH, coda:COMPONENTS, …"."""
        return ", ".join(form.usage for form in self.forms.values())


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that what is written there registers itself."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
