"""docker-compose.yml and the Dockerfiles as tests read them."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
OWN = "tramontane/"
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+):-([^${}]*)\})")


def compose(variables=None):
    """The file with variables filled in as Compose does; those that are not given have the defaults of the file."""
    return filled_in(yaml.safe_load(FILE.read_text()), variables or {})


def filled_in(node, variables):
    if isinstance(node, dict):
        return {name: filled_in(value, variables) for name, value in node.items()}
    if isinstance(node, list):
        return [filled_in(value, variables) for value in node]
    if not isinstance(node, str):
        return node
    assert "$" not in _VARIABLE.sub("", node), f"a variable without a default: {node}"
    return _VARIABLE.sub(lambda found: found[1] or variables.get(found[2], found[3]), node)


def variables():
    """Names of all variables in the file."""
    return {name for _, name, _ in _VARIABLE.findall(FILE.read_text()) if name}


def own_services(services):
    return {name: service for name, service in services.items() if service["image"].startswith(OWN)}


def one_shots(services):
    return {name: service for name, service in services.items() if service.get("restart") == "no"}


def instructions(dockerfile):
    """(stage, word, rest) of each; a stage without a name has its number. Lines that go on are joined."""
    stage, number = "", -1
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE))
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            number += 1
            stage = rest.partition(" AS ")[2] or str(number)
        yield stage, word, rest.strip()


def copied(dockerfile):
    """What is taken from the build context: (stage, sources, target)."""
    for stage, word, rest in instructions(dockerfile):
        if word == "COPY" and "--from=" not in rest:
            *sources, target = rest.split()
            yield stage, sources, target
