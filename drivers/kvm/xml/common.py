"""What all XML of this driver shares: the element maker, safe parsing and our metadata's namespace."""

from __future__ import annotations

from lxml import etree
from lxml.builder import ElementMaker

Element = etree._Element  # noqa: SLF001 - lxml gives its element type no public name

NAMESPACE = "urn:stratograph:kvm:1"
NAMESPACE_PREFIX = "stratograph"

E = ElementMaker()
OURS = ElementMaker(namespace=NAMESPACE, nsmap={NAMESPACE_PREFIX: NAMESPACE})

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)


def text(element: Element) -> str:
    """The element as libvirt takes it."""
    return etree.tostring(element, encoding="unicode")


def parse(document: str) -> Element:
    """libvirt's XML, with entities and the network switched off."""
    return etree.fromstring(document, _PARSER)


def strings(element: Element, path: str) -> list[str]:
    """The texts or attribute values an XPath finds."""
    answer = element.xpath(path)
    return [str(each) for each in answer] if isinstance(answer, list) else [str(answer)]
