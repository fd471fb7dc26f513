// What every page needs besides HTMX: menus, windows, copying, the theme, the field that a refusal is about.
"use strict";
(() => {
  const root = document.documentElement;

  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;

  const actions = {
    toggleTheme() {
      root.dataset.theme = dark() ? "light" : "dark";
      localStorage.setItem("theme", root.dataset.theme);
      document.dispatchEvent(new CustomEvent("theme-changed"));
    },
    toggleMenu(button) {
      const open = document.getElementById("menu").classList.toggle("open");
      button.setAttribute("aria-expanded", String(open));
    },
    open(button) {
      document.getElementById(button.dataset.open).showModal();
    },
    close(button) {
      button.closest("dialog").close();
    },
    async copy(button) {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      const label = button.querySelector("span");
      const before = label.textContent;
      label.textContent = "Copied";
      setTimeout(() => { label.textContent = before; }, 1500);
    },
  };

  document.addEventListener("click", (event) => {
    for (const [name, run] of Object.entries(actions)) {
      const attribute = `data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
      const found = event.target.closest(`[${attribute}]`);
      if (found) run(found);
    }
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
    if (event.target.nodeName === "DIALOG") event.target.close();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  });

  document.addEventListener("htmx:configRequest", (event) => {
    const token = document.querySelector("meta[name=csrf-token]");
    if (token && event.detail.verb !== "get") event.detail.headers["X-CSRF-Token"] = token.content;
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    const problem = event.detail.target?.querySelector?.(".problem"); // live parts have no target
    const form = problem?.closest("form");
    if (!form) return;
    for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    const field = problem.dataset.param && form.elements[problem.dataset.param];
    if (field?.focus) {
      field.setAttribute("aria-invalid", "true");
      field.focus();
    }
  });

  document.addEventListener("htmx:sendError", (event) => {
    const place = event.detail.elt.querySelector?.(".problem-place");
    if (place) {
      const told = document.createElement("p");
      told.className = "problem";
      told.textContent = "The platform cannot be reached. Check the connection and try again.";
      place.replaceChildren(told);
    }
  });
})();
