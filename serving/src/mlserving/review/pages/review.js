// Keys, and a type-ahead that goes with them. The page works without: then browsers show their own list of classes.
"use strict";

const field = document.getElementById("label");
const keys = document.getElementById("keys");
const remembered = "millrace-review-keys";

if (keys) {
  keys.closest("p").hidden = false;
  keys.checked = localStorage.getItem(remembered) !== "off";
  keys.addEventListener("change", () => localStorage.setItem(remembered, keys.checked ? "on" : "off"));
}

// A form is sent once, however often somebody presses: the next press would be about the next case.
let sent = false;
addEventListener("pageshow", () => { sent = false; });
document.addEventListener("submit", (event) => {
  if (sent) event.preventDefault();
  sent = true;
});

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (keys && !keys.checked) return;
  if (event.target.matches("input:not([type=checkbox]), textarea, select")) return;
  const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!target || target.disabled) return;
  event.preventDefault();
  if (target === field) field.focus();
  else target.click();
});

// The type-ahead: an ARIA combobox with a list below. The first match is chosen already, so `bo`, Enter is books.
if (field) {
  const classes = [...document.getElementById("classes").options].map((option) => option.value);
  const list = document.createElement("ul");
  list.id = "matches";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Classes");
  list.hidden = true;
  field.removeAttribute("list");
  field.after(list);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-expanded": "false", "aria-controls": "matches", "aria-autocomplete": "list" })) {
    field.setAttribute(name, value);
  }
  let active = -1;

  const matches = () => {
    const typed = field.value.trim().toLowerCase();
    const begin = classes.filter((name) => name.toLowerCase().startsWith(typed));
    const within = classes.filter((name) => !name.toLowerCase().startsWith(typed) && name.toLowerCase().includes(typed));
    return [...begin, ...within].slice(0, 8);
  };

  const choose = (index) => {
    active = index;
    [...list.children].forEach((option, place) => option.setAttribute("aria-selected", String(place === index)));
    if (index >= 0) {
      field.setAttribute("aria-activedescendant", list.children[index].id);
      list.children[index].scrollIntoView({ block: "nearest" });
    } else field.removeAttribute("aria-activedescendant");
  };

  const close = () => {
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    choose(-1);
  };

  const take = (option) => {
    field.value = option.dataset.value;
    close();
    field.form.requestSubmit(field.form.querySelector("button"));
  };

  const open = () => {
    const typed = field.value.trim().replace(/\s+/g, " ");
    const found = matches().map((name) => [name, name]);
    if (typed && !classes.some((name) => name.toLowerCase() === typed.toLowerCase())) found.push([typed, `New class: ${typed}`]);
    list.replaceChildren(...found.map(([value, text], place) => {
      const option = document.createElement("li");
      option.id = `match-${place}`;
      option.setAttribute("role", "option");
      option.dataset.value = value;
      option.textContent = text;
      option.addEventListener("mousedown", (event) => { event.preventDefault(); take(option); });
      return option;
    }));
    list.hidden = found.length === 0;
    field.setAttribute("aria-expanded", String(found.length > 0));
    choose(typed && found.length ? 0 : -1);
  };

  field.addEventListener("input", open);
  field.addEventListener("focus", open);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (list.hidden) open();
      else choose((active + step + list.children.length) % list.children.length);
    } else if (event.key === "Enter" && !event.isComposing && active >= 0) {
      event.preventDefault();
      take(list.children[active]);
    } else if (event.key === "Escape") {
      if (list.hidden) field.blur();
      else close();
    }
  });
}
