"""JSON by a schema: whatever random weights would like to say, every answer ends by itself and follows its schema."""

import json
import random

from jsonschema import Draft202012Validator

from core.grammars import json_schema_grammar
from tests.contracts.engines.models import prompt, running
from tests.contracts.engines.run import job
from tests.unit.loop_bench import MODEL

SCHEMAS = 200
BATCH = 32
CONTEXT_TOKENS = 1_024
CHAR_BYTES_MAX = 12  # a character outside the basic plane as two escapes
WORDS = ("name", "état", "größe", 'a "b"', "x y", "n", "tags", "size", "更新", "😀")


class Schemas:
    """Random schemas of bounded answers; `bytes_max` of an answer, and so of its tokens."""

    def __init__(self, seed: int) -> None:
        self._rnd = random.Random(seed)

    def object(self, depth: int = 2) -> tuple[dict, int]:
        names = self._rnd.sample(WORDS, self._rnd.randint(1, 4))
        parts = {name: self._value(depth - 1) for name in names}
        required = [name for name in names if self._rnd.random() < 0.7]
        sizes = [len(json.dumps(name)) + size + len(', ": "') for name, (_, size) in parts.items()]
        schema = {
            "type": "object",
            "properties": {name: part for name, (part, _) in parts.items()},
            "required": required,
            "additionalProperties": False,
        }
        return schema, sum(sizes) + 2

    def _value(self, depth: int) -> tuple[dict, int]:
        kinds = [self._string, self._enum, self._integer, self._number, self._boolean, self._null_or]
        if depth > 0:
            kinds += [lambda: self.object(depth), lambda: self._array(depth)] * 2
        return self._rnd.choice(kinds)()

    def _string(self) -> tuple[dict, int]:
        most = self._rnd.randint(1, 8)
        schema = {"type": "string", "maxLength": most}
        if self._rnd.random() < 0.5:
            schema["minLength"] = self._rnd.randint(0, most)
        if self._rnd.random() < 0.3:
            schema = {"type": "string", "pattern": f"^[a-f0-9]{{1,{most}}}$"}
        return schema, most * CHAR_BYTES_MAX + 2

    def _enum(self) -> tuple[dict, int]:
        values = self._rnd.sample(["red", "green", "très", 7, -1.5, None, True, "a\nb"], self._rnd.randint(1, 4))
        return {"enum": values}, max(len(json.dumps(value)) for value in values)

    def _integer(self) -> tuple[dict, int]:
        least = self._rnd.randint(-2_000, 2_000)
        return {"type": "integer", "minimum": least, "maximum": least + self._rnd.randint(0, 5_000)}, 5

    def _number(self) -> tuple[dict, int]:
        """In steps that a float holds exactly; without them a grammar bounds the value, but not its digits."""
        least = self._rnd.randint(0, 50)
        return {
            "type": "number",
            "minimum": least,
            "maximum": least + self._rnd.randint(1, 400),
            "multipleOf": self._rnd.choice([0.5, 0.25]),
        }, 6

    def _boolean(self) -> tuple[dict, int]:
        return {"type": "boolean"}, 5

    def _null_or(self) -> tuple[dict, int]:
        schema, size = self._string()
        return {"anyOf": [schema, {"type": "null"}]}, max(size, 4)

    def _array(self, depth: int) -> tuple[dict, int]:
        items, size = self._value(depth - 1)
        most = self._rnd.randint(1, 3)
        return {"type": "array", "items": items, "minItems": self._rnd.randint(0, most), "maxItems": most}, (
            most * (size + 2) + 2
        )


def schemas() -> list[tuple[dict, int]]:
    """So many different ones whose answers fit the context."""
    maker, found = Schemas(2_312), {}
    while len(found) < SCHEMAS:
        schema, bytes_max = maker.object()
        if bytes_max < CONTEXT_TOKENS - 64:
            found[json.dumps(schema)] = (schema, bytes_max)
    return list(found.values())


async def test_answers_by_200_schemas_end_by_themselves_and_are_valid(models):
    jobs = {}
    for i, (schema, bytes_max) in enumerate(schemas()):
        jobs[f"r{i}"] = job(
            f"r{i}",
            prompt=prompt(4 + i % 40, i),
            grammar=json_schema_grammar(schema, strict=True),
            max_tokens=bytes_max + 1,  # a first space
            min_tokens=i % 3 * 10_000,  # which a complete answer does not wait for
            temperature=(0.0, 0.7, 1.0, 1.5)[i % 4],
            seed=i,
        )
    async with running(models / "standin-tiny", context_tokens=CONTEXT_TOKENS, slots=BATCH) as run:
        answers = {}
        for start in range(0, SCHEMAS, BATCH):
            answers |= await run.answer(*list(jobs.values())[start : start + BATCH])
    texts = set()
    for i, (schema, _) in enumerate(schemas()):
        ids, reason = answers[f"r{i}", 0]
        text = MODEL.decode(list(ids))
        assert reason == "stop", text
        Draft202012Validator(schema).validate(json.loads(text))
        texts.add(text)
    assert len(texts) > SCHEMAS * 0.9, "they are not all the emptiest"


async def test_a_grammar_changes_nothing_for_others_and_comes_again_with_its_seed(models):
    """Also with choices, when it is continued, and when max_tokens cuts it off."""
    schema, bytes_max = schemas()[3]
    kind = {"prompt": prompt(12), "temperature": 1.0, "seed": 4, "max_tokens": bytes_max + 1}
    held = job("held", grammar=json_schema_grammar(schema, strict=True), n=3, **kind)
    free = job("free", prompt=prompt(9), max_tokens=20)
    async with running(models / "standin-tiny", context_tokens=CONTEXT_TOKENS) as run:
        alone = await run.answer(free)
        together = await run.answer(held, job("free again", prompt=prompt(9), max_tokens=20))
        begun = tuple(together["held", choice][0][: 3 * choice] for choice in range(3))
        rest = await run.answer(job("rest", grammar=held.grammar, n=3, emitted=begun, **kind))
        exact = len(together["held", 0][0])
        cut = await run.answer(
            job("cut", grammar=held.grammar, **{**kind, "max_tokens": exact - 1}),
            job("whole", grammar=held.grammar, **{**kind, "max_tokens": exact}),
        )
    assert together["free again", 0] == alone["free", 0]
    assert len({together["held", choice][0] for choice in range(3)}) == 3
    for choice in range(3):
        ids, reason = rest["rest", choice]
        assert (begun[choice] + ids, reason) == together["held", choice]
    assert (cut["cut", 0][1], cut["whole", 0]) == ("length", together["held", 0])


async def test_a_constrained_request_is_aborted_before_and_while_it_runs(models):
    """The answer is far from its end, however late the abort comes."""
    long = json_schema_grammar({"type": "array", "items": {"type": "boolean"}, "minItems": 400}, strict=True)
    async with running(models / "standin-tiny", context_tokens=CONTEXT_TOKENS) as run:
        run.engine.submit(job("early", grammar=long, n=2, max_tokens=1_000))
        assert run.engine.stats().running == 1
        run.engine.abort("early", 1)
        await run.until(lambda: bool(run.ids["early", 0]))
        run.engine.abort("early")
        answers = await run.answer(job("next", grammar='start: "yes" | "no"', max_tokens=50))
        await run.silence()
    assert [run.ends["early", choice][0].reason for choice in range(2)] == ["aborted", "aborted"]
    assert run.ids["early", 1] == []
    assert MODEL.decode(list(answers["next", 0][0])) in {"yes", "no"}
    assert answers["next", 0][1] == "stop"
