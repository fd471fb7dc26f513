"""What a client cannot do for reasons of its own, so that a table with it is still a good one."""

from collections.abc import Mapping
from types import MappingProxyType

DEFECTS: Mapping[tuple[str, str, str], str] = MappingProxyType(
    {
        ("mistralai", "1.0.0", "tools_stream"): "its own model of a chunk takes one call where the API sends a list",
        ("mistralai", "1.0.0", "error_422"): "its HTTPValidationError has neither a status nor the text",
        ("mistralai", "1.0.0", "error_stream"): "raises ResponseNotRead: it looks at a body that it has not read",
        ("mistralai", "1.0.0", "usage"): "of the calls that it cannot read it does not learn the usage",
        ("litellm", "1.106.2", "tools_named"): "it leaves a tool_choice that names a tool out of the request",
    }
)


def excused(package: str, version: str, feature: str, result: str) -> bool:
    """Whether this is no failure of the platform. A defect that is gone is to be taken off the list."""
    return (result == "failed") == ((package, version, feature) in DEFECTS)
