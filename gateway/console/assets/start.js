// Colours for the snippets of Getting started. Their text stays as it is.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".snippet code").forEach((code) => hljs.highlightElement(code));
});
