// The chat: messages out by fetch, answers in as they come, everything else from the server's page.
"use strict";
(() => {
  const root = document.getElementById("chat");
  if (!root) return;
  const { Prose } = window.chatMarkdown;
  const $ = (id) => document.getElementById(id);
  const composer = $("composer"), box = $("chat-text"), scroll = $("chat-scroll"), settings = $("chat-settings");
  const words = new WeakMap(); // by turn: what was said, before it became HTML
  let chat = root.dataset.chat;
  let running = null; // the AbortController of the answer that comes
  let saving = Promise.resolve(true);

  const piece = (name) => $(`piece-${name}`).content.cloneNode(true).firstElementChild;
  const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });
  const place = () => `${root.dataset.home}/${chat}`;
  const count = () => Number($("thread").dataset.count);

  function enhance(thread) {
    for (const element of thread.querySelectorAll("[data-words], [data-plain]")) {
      const text = element.textContent;
      words.set(element.closest(".turn"), text);
      if ("words" in element.dataset) new Prose(element).show(text);
    }
  }

  // Asking

  function post(path, fields, signal) {
    const headers = { "X-CSRF-Token": document.querySelector("meta[name=csrf-token]").content, "HX-Request": "true" };
    return fetch(path, { method: "POST", headers, body: new URLSearchParams(fields), signal });
  }

  async function tell(where, response) {
    const target = response.headers.get("hx-redirect");
    if (target) location.assign(target);
    const made = document.createElement("template");
    made.innerHTML = await response.text(); // ours: rendered and escaped by the server
    where.replaceChildren(made.content);
    const param = where.querySelector(".problem")?.dataset.param;
    const field = param && settings.elements[param];
    if (field?.focus && where !== $("chat-problem")) field.setAttribute("aria-invalid", "true");
  }

  function unreachable(where) {
    const told = document.createElement("p");
    told.className = "problem";
    told.textContent = "The platform cannot be reached. Check the connection and try again.";
    where.replaceChildren(told);
  }

  async function begin() {
    if (chat) return true;
    const response = await post(root.dataset.home, new FormData(settings));
    if (!response.ok) {
      await tell($("chat-problem"), response);
      return false;
    }
    const made = await response.json();
    chat = root.dataset.chat = made.id;
    return true;
  }

  async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const parts = rest.split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const event = /^event: (.*)$/m.exec(part)?.[1];
        const data = /^data: (.*)$/m.exec(part)?.[1];
        if (event && data) yield { event, data: JSON.parse(data) };
      }
    }
  }

  // One turn: `path` is messages or answers. True if the server has taken it.
  async function ask(path, fields, answer) {
    const before = count();
    running = new AbortController();
    busy(true);
    $("chat-problem").replaceChildren();
    let taken = false, finished = null;
    try {
      if (!(await saving) || !(await begin())) return false;
      const response = await post(`${place()}/${path}`, fields, running.signal);
      history.replaceState(null, "", place());
      if (response.ok && response.headers.get("content-type").startsWith("text/event-stream")) {
        taken = true;
        finished = await follow(response.body, answer);
      } else await tell($("chat-problem"), response);
    } catch (error) {
      if (error.name !== "AbortError") unreachable($("chat-problem"));
    } finally {
      running = null;
      busy(false);
    }
    await settle(taken ? before + (path === "messages" ? 2 : 1) : 0);
    if (!taken) toEnd(); // why it was refused has taken some of the room
    if (finished) {
      const said = finished.text.trim() || finished.end.note || "without a word";
      $("chat-said").textContent = `Answer: ${said}`;
    }
    return taken || count() > before;
  }

  async function follow(body, answer) {
    const prose = new Prose(answer.querySelector(".prose"));
    const wait = answer.querySelector("[data-wait]");
    let text = "", painting = false, costMs = 0;
    const paint = () => {
      painting = false;
      const stuck = atEnd();
      const began = performance.now();
      prose.show(text);
      costMs = performance.now() - began;
      if (stuck) toEnd();
    };
    for await (const { event, data } of events(body)) {
      if (event === "delta") {
        if (!text) answer.classList.add("speaking");
        text += data.text;
        prose.append(data.text);
        if (!painting) {
          painting = true;
          if (costMs > 8) setTimeout(() => requestAnimationFrame(paint), 8 * costMs);
          else requestAnimationFrame(paint);
        }
      } else if (event === "waiting") {
        if (data.queued) wait.textContent = data.about_s ? `In the queue, about ${data.about_s} s` : "In the queue";
        else wait.textContent = "Working on it";
      } else if (event === "end") return { text, end: data };
    }
    return null;
  }

  function busy(on) {
    $("chat-send").hidden = on;
    $("chat-stop").hidden = !on;
    scroll.setAttribute("aria-busy", String(on));
  }

  // What has become of it, from the server; `wanted`: at least so many turns.
  async function settle(wanted) {
    if (!chat) return;
    for (let tries = 0; tries < 20; tries += 1) {
      const page = await read();
      if (page === null) return;
      if (Number(page.getElementById("thread").dataset.count) >= wanted || tries === 19) {
        swap(page);
        break;
      }
      await pause(250);
    }
    poll();
  }

  async function read() {
    try {
      const response = await fetch(place());
      if (response.redirected || !response.ok) return null;
      return new DOMParser().parseFromString(await response.text(), "text/html");
    } catch {
      return null;
    }
  }

  function swap(page) {
    if (!page.getElementById("composer")) {
      location.reload();
      return;
    }
    const stuck = atEnd(), top = scroll.scrollTop;
    const thread = document.adoptNode(page.getElementById("thread"));
    enhance(thread);
    $("thread").replaceWith(thread);
    for (const query of [".page-head", "#chat-list", "#chat-totals"]) {
      document.querySelector(query).replaceWith(document.adoptNode(page.querySelector(query)));
    }
    for (const id of ["rename", "delete"]) {
      if ($(id) || !page.getElementById(id)) continue;
      const made = document.adoptNode(page.getElementById(id));
      document.getElementById("main").append(made);
      htmx.process(made);
    }
    document.title = page.title;
    if (stuck) toEnd();
    else scroll.scrollTop = top;
  }

  // The usage of an answer that was cut is known once it is collected.
  let polling = false;
  async function poll() {
    if (polling) return;
    polling = true;
    for (let tries = 0; tries < 8 && document.querySelector("[data-counting]"); tries += 1) {
      await pause(1_000 + 500 * tries);
      if (running || document.querySelector(".turn-edit")) continue;
      const page = await read();
      if (page && !running) swap(page);
    }
    polling = false;
  }

  const atEnd = () => scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 90;
  const toEnd = () => { scroll.scrollTop = scroll.scrollHeight; };

  // What the person does

  function turns() {
    document.querySelector(".chat-hello")?.remove();
    return document.querySelector("#thread .turns");
  }

  function expectAnswer() {
    const answer = piece("answer");
    answer.querySelector(".turn-who").textContent = $("chat-tier").value;
    turns().append(answer);
    toEnd();
    return answer;
  }

  function cutAfter(turn) {
    while (turn.nextElementSibling) turn.nextElementSibling.remove();
  }

  async function send(text, parent) {
    const question = piece("question");
    question.querySelector(".bubble").textContent = text;
    turns().append(question);
    const taken = await ask("messages", { text, parent }, expectAnswer());
    if (!taken) {
      question.remove();
      document.querySelector("#thread [aria-busy]")?.remove();
    }
    return taken;
  }

  async function submit() {
    const text = box.value.trim();
    if (!text || running) return;
    box.value = "";
    grow(box);
    if (!(await send(text, $("thread").dataset.leaf)) && !box.value) {
      box.value = text;
      grow(box);
    }
    if (!matchMedia("(pointer: coarse)").matches) box.focus();
  }

  async function retry(number) {
    if (running) return;
    const question = document.querySelector(`.turn[data-turn="${number}"]`);
    if (question) cutAfter(question);
    await ask("answers", { question: number }, expectAnswer());
  }

  function edit(turn) {
    if (running || turn.querySelector(".turn-edit")) return;
    const form = piece("edit"), area = form.querySelector("textarea"), bubble = turn.querySelector(".bubble");
    area.value = words.get(turn);
    bubble.hidden = true;
    bubble.after(form);
    grow(area);
    area.focus();
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const text = area.value.trim();
      if (!text || running) return;
      cutAfter(turn);
      turn.remove();
      await send(text, turn.dataset.parent);
    });
    form.querySelector("[data-chat-edit-cancel]").addEventListener("click", () => {
      form.remove();
      bubble.hidden = false;
      turn.querySelector("[data-chat-edit]").focus();
    });
  }

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      $("chat-said").textContent = "The browser does not allow copying here.";
      return;
    }
    $("chat-said").textContent = "Copied.";
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1_500);
  }

  function panel(name) {
    const open = $(name).classList.toggle("open");
    for (const button of document.querySelectorAll(`[data-panel="${name}"][aria-controls]`)) {
      button.setAttribute("aria-expanded", String(open));
    }
  }

  function grow(area) {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  }

  document.addEventListener("click", (event) => {
    const found = (name) => event.target.closest(`[data-${name}]`);
    const turn = event.target.closest(".turn");
    let button;
    if ((button = found("chat-retry"))) retry(button.dataset.chatRetry);
    else if ((button = found("chat-edit"))) edit(turn);
    else if ((button = found("chat-copy"))) copy(words.get(turn), button);
    else if ((button = found("chat-code"))) copy(button.closest(".code-block").querySelector("pre").textContent, button);
    else if ((button = found("panel"))) panel(button.dataset.panel);
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") for (const open of root.querySelectorAll(".open")) panel(open.id);
  });

  document.addEventListener("input", (event) => {
    if (event.target.matches("#chat textarea:not(#chat-system)")) grow(event.target);
  });

  if (composer) {
    composer.hidden = false;
    composer.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
    box.addEventListener("keydown", (event) => {
      const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing;
      if (!sends || matchMedia("(pointer: coarse)").matches) return;
      event.preventDefault();
      submit();
    });
    $("chat-stop").addEventListener("click", () => running?.abort());
  }

  // Settings of a conversation are kept when they change; a new one takes them along.
  async function save() {
    const trouble = $("chat-settings-problem");
    for (const field of settings.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    $("chat-saved").textContent = "";
    trouble.replaceChildren();
    if (!chat) return true;
    try {
      const response = await post(`${place()}/settings`, new FormData(settings));
      if (response.ok) $("chat-saved").textContent = "Saved for the next message.";
      else await tell(trouble, response);
      return response.ok;
    } catch {
      unreachable(trouble);
      return false;
    }
  }

  function showTier() {
    for (const card of document.querySelectorAll("[data-tier]")) card.hidden = card.dataset.tier !== $("chat-tier")?.value;
  }

  document.addEventListener("change", (event) => {
    if (event.target.form !== settings) return;
    showTier();
    saving = saving.then(save);
  });
  settings.addEventListener("submit", (event) => event.preventDefault());

  enhance($("thread"));
  showTier();
  toEnd();
  poll();
})();
