"""What all XML of this driver shares: the element maker, safe parsing and our metadata's namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol
from xml.etree.ElementTree import canonicalize

from lxml import etree
from lxml.builder import ElementMaker  # type: ignore[import-not-found]  # lxml-stubs lack this module

Element = etree._Element  # noqa: SLF001 - lxml gives its element type no public name

IPV4: Literal[4] = 4
IPV6: Literal[6] = 6

NAMESPACE = "urn:stratograph:kvm:1"
NAMESPACE_PREFIX = "stratograph"


class Maker(Protocol):
    """``make.tag(child, "text", attribute="value")`` makes an element; ``make("odd-tag", ...)`` too."""

    def __call__(self, tag: str, *children: Element | str, **attributes: str) -> Element:
        """An element whose tag is no Python name."""

    def __getattr__(self, tag: str) -> Callable[..., Element]: ...


def maker(namespace: str, prefix: str) -> Maker:
    """An element maker of a namespace."""
    made: Maker = ElementMaker(namespace=namespace, nsmap={prefix: namespace})
    return made


E: Maker = ElementMaker()
OURS = maker(NAMESPACE, NAMESPACE_PREFIX)

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)


def text(element: Element) -> str:
    """The element as libvirt takes it."""
    return etree.tostring(element, encoding="unicode")


def parse(document: str) -> Element:
    """What libvirt answered, with entities and the network switched off."""
    return etree.fromstring(document, _PARSER)


def strings(element: Element, path: str) -> list[str]:
    """The texts or attribute values an XPath finds."""
    answer = element.xpath(path)
    return [str(each) for each in answer] if isinstance(answer, list) else [str(answer)]


def canonical(element: Element) -> str:
    """A text that two elements share when they differ in blanks, prefixes and the order of attributes at most."""
    return canonicalize(text(element), strip_text=True, rewrite_prefixes=True)
