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
    """A short text that makes an object. usage: how it is written ("deep:COUNT"). word: what
    follows the colon, in small letters; "" for nothing. does: what it is, in one phrase.
    """

    cls: type[T]
    usage: str
    word: str
    does: str


class Registry(Generic[T]):
    """The classes of one room. Each registers itself where it is written, so that a new one is one
    file.

    classes: by their own name, as a file names them. forms: by the short name of a text. about:
        what each class is, in one phrase.
    """

    def __init__(self) -> None:
        self.classes: dict[str, type[T]] = {}
        self.forms: dict[str, Form[T]] = {}
        self.about: dict[str, str] = {}

    def register(self, usage: str = "", does: str = "") -> Callable[[type[C]], type[C]]:
        """Decorates a class that files may name, and that `usage`, where there is one, makes."""

        def keep(cls: type[C]) -> type[C]:
            name, _, word = usage.partition(":")
            named = [self.classes.get(cls.__name__), getattr(self.forms.get(name), "cls", None)]
            for known in named:
                if known is not None and f"{known}" != f"{cls}":
                    raise TypeError(f"{cls} and {known} have one name.")
            self.classes[cls.__name__] = cls  # type: ignore[assignment]
            self.about[cls.__name__] = does
            if name:
                self.forms[name] = Form(cls, usage, word.lower(), does)  # type: ignore[arg-type]
            return cls

        return keep

    def usages(self) -> str:
        """All texts, for help and errors: "border:WIDTH, coda:COMPONENTS, …"."""
        return ", ".join(form.usage for form in self.forms.values())


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that what is written there registers itself."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
