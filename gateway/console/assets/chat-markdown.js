// Markdown of a model, made safe: no HTML of its own, no pictures, nothing from elsewhere, links that tell nobody.
"use strict";
window.chatMarkdown = (() => {
  const TAGS = [
    "p", "br", "hr", "h3", "h4", "h5", "h6", "strong", "em", "del", "code", "pre", "blockquote", "a",
    "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "span",
  ];
  const RULES = {
    ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ["href", "title", "start", "align", "class"],
    ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false, RETURN_DOM_FRAGMENT: true,
  };
  const COLOURED_CHARS_MAX = 20_000;
  const REMEMBERED_MAX = 200;
  const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  const escape = (text) => text.replace(/[&<>"']/g, (letter) => escapes[letter]);

  const parser = new marked.Marked({ gfm: true, breaks: true });
  parser.use({
    renderer: {
      html: ({ text, block }) => (block ? `<p>${escape(text)}</p>` : escape(text)),
      image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
      checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
      heading({ tokens, depth }) { // a page has its own headings above
        const level = Math.min(6, depth + 2);
        return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
      },
    },
  });

  const purify = DOMPurify(window);
  purify.addHook("afterSanitizeAttributes", (node) => {
    if (node.nodeName === "A") {
      if (/^(https?:|mailto:)/i.test(node.getAttribute("href") || "")) {
        node.setAttribute("target", "_blank");
        node.setAttribute("rel", "noopener noreferrer nofollow");
      } else node.removeAttribute("href");
    }
    const language = node.getAttribute("class");
    if (language && !/^(language-[\w+#.-]{1,40}|hljs[\w -]*)$/.test(language)) node.removeAttribute("class");
  });

  const coloured = new Map();
  function colour(code, language) {
    const text = code.textContent;
    if (!hljs.getLanguage(language) || text.length > COLOURED_CHARS_MAX) return;
    const key = `${language}\n${text}`;
    if (!coloured.has(key)) {
      if (coloured.size >= REMEMBERED_MAX) coloured.clear();
      coloured.set(key, hljs.highlight(text, { language, ignoreIllegals: true }).value);
    }
    code.replaceChildren(purify.sanitize(coloured.get(key), { ...RULES, ALLOWED_TAGS: ["span"] }));
  }

  function finish(fragment) {
    for (const pre of fragment.querySelectorAll("pre")) {
      const code = pre.querySelector("code");
      const language = (code?.className || "").replace("language-", "");
      const frame = document.getElementById("piece-code").content.cloneNode(true).firstElementChild;
      frame.querySelector("[data-language]").textContent = language || "text";
      pre.replaceWith(frame);
      frame.append(pre);
      pre.tabIndex = 0;
      if (code) colour(code, language);
    }
    for (const table of fragment.querySelectorAll("table")) {
      const scroll = document.createElement("div");
      scroll.className = "table-scroll";
      scroll.tabIndex = 0;
      table.replaceWith(scroll);
      scroll.append(table);
    }
    return fragment;
  }

  // Shows growing text in an element: blocks that have not changed stay as they are.
  class Prose {
    constructor(element) {
      this.element = element;
      this.blocks = [];
      this.text = "";
    }

    show(text) {
      this.text = text;
      const tokens = parser.lexer(text);
      let same = 0;
      while (same < this.blocks.length && same < tokens.length && this.blocks[same].raw === tokens[same].raw) same += 1;
      for (const block of this.blocks.splice(same)) for (const node of block.nodes) node.remove();
      if (!this.blocks.length) this.element.replaceChildren();
      for (const token of tokens.slice(same)) {
        const fragment = finish(purify.sanitize(parser.parser([token]), RULES));
        const nodes = [...fragment.childNodes];
        this.element.append(...nodes);
        this.blocks.push({ raw: token.raw, nodes });
      }
    }

    // At once, before the next `show` reads it as Markdown.
    append(text) {
      this.text += text;
      let node = this.element;
      while (node.lastChild) node = node.lastChild;
      if (node.nodeType === Node.TEXT_NODE) node.appendData(text);
      else this.element.append(text);
      if (this.blocks.length) this.blocks.at(-1).raw = null; // it is to be made anew
    }
  }

  return { Prose };
})();
