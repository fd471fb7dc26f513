"""The pages that a menu leads to, those that their tables lead to, and some life for them to show."""

import httpx

QUESTIONS = ("What is the capital of France?", "Write a haiku about the north wind.", "Extract the order as JSON.")


def menu_of(person):
    """Every path of the menu, without the /console before it."""
    page = person.go("")
    links = page.eval_on_selector_all("#menu a", "all => all.map(each => each.getAttribute('href'))")
    return [link.removeprefix("/console") for link in links]


def pages_of(person):
    """Those of the menu, one for each kind of row in their tables, and the person's own account."""
    menu = menu_of(person)
    found = {}
    for path in menu:
        page = person.go(path)
        rows = page.eval_on_selector_all(
            "main tbody a", "all => all.map(each => new URL(each.href)).map(url => url.pathname + url.search)"
        )
        within = [row.removeprefix("/console") for row in rows if row.startswith(f"/console{path}/")]
        found.update({path: None}, **dict.fromkeys(within[:1]))
    return [*found, "/profile"]


def play(platform):
    """Requests that succeed, and some that are refused."""
    with httpx.Client(base_url=platform.url, headers={"authorization": f"Bearer {platform.key}"}, timeout=30) as client:
        for number, question in enumerate(QUESTIONS * 4):
            tier = ("mistral-tiny", "mistral-small")[number % 2]
            body = {"model": tier, "messages": [{"role": "user", "content": question}], "max_tokens": 60}
            assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert client.post("/v1/embeddings", json={"model": "mistral-embed", "input": ["one", "two"]}).is_success
        assert client.post("/v1/chat/completions", json={"model": "no-such", "messages": []}).is_client_error
