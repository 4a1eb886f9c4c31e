// The keys of the room Papers, and what a list leaves behind for the pages of its papers.
//
// A paper's title link has the focus, so that Enter opens it and a screen reader says it. Nothing
// happens while one types, and the keys can be switched off (WCAG 2.2, 2.1.4).

const OFF = "etude-papers-keys-off";
const LIST = "etude-papers-list";

interface LastList {
  address: string;
  ids: string[];
}

const dialog = document.querySelector<HTMLDialogElement>("#keys");
const told = document.querySelector<HTMLElement>("#told");

function kept<T>(storage: () => Storage, key: string): T | null {
  try {
    return JSON.parse(storage().getItem(key) ?? "null") as T | null;
  } catch {
    return null; // a browser that stores nothing
  }
}

function keep(storage: () => Storage, key: string, value: unknown): void {
  try {
    storage().setItem(key, JSON.stringify(value));
  } catch {
    // The same.
  }
}

const session = () => sessionStorage;
const lasting = () => localStorage;

const list = () => [...document.querySelectorAll<HTMLElement>("#content li[data-paper]")];
const single = () => document.querySelector<HTMLElement>("article[data-paper]");

function current(): HTMLElement | null {
  return document.activeElement?.closest<HTMLElement>("li[data-paper]") ?? null;
}

/** Move to the next paper of the list, or of the list that this paper was opened from. */
function move(by: 1 | -1): void {
  const paper = single();
  if (paper && !current()) {
    const last = kept<LastList>(session, LIST);
    const at = last?.ids.indexOf(paper.dataset.paper ?? "") ?? -1;
    const next = at < 0 ? undefined : last?.ids[at + by];
    if (next) location.assign(`/papers/paper/${next}`);
    else say(at < 0 ? "This paper was not opened from a list." : "That was the last of the list.");
    return;
  }
  const all = list();
  const here = current();
  const at = here ? all.indexOf(here) : by > 0 ? -1 : all.length;
  const next = all[at + by];
  const link = next?.querySelector<HTMLElement>("a.open");
  if (!next || !link) {
    const turn = document.querySelector<HTMLElement>(`.turning a[rel="${by > 0 ? "next" : "prev"}"]`);
    if (turn && all.length) turn.focus();
    return;
  }
  link.focus({ preventScroll: true });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  next.scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
}

/** Press the button of an opinion on the paper that has the focus, or on the only one. */
function judge(which: "like" | "dislike"): void {
  const paper = current() ?? document.querySelector<HTMLElement>("[data-single]");
  const button = paper?.querySelector<HTMLButtonElement>(`button[id^="${which}-"]`);
  if (!button) {
    say("Choose a paper first: j goes to the next one.");
    return;
  }
  const undone = button.getAttribute("aria-pressed") === "true";
  button.click();
  say(undone ? "Taken back." : which === "like" ? "Liked." : "Marked as not for me.");
}

/** Tick the paper that has the focus for an export. */
function tick(): void {
  const box = current()?.querySelector<HTMLInputElement>('input[form="ticked"]');
  if (!box) {
    say("Choose a paper first: j goes to the next one.");
    return;
  }
  box.checked = !box.checked;
  const count = document.querySelectorAll('input[form="ticked"]:checked').length;
  say(`${box.checked ? "Ticked" : "Unticked"}: ${count} to export, at the foot of the list.`);
}

function say(text: string): void {
  if (told) told.textContent = text;
}

function back(): void {
  const last = kept<LastList>(session, LIST);
  const id = single()?.dataset.paper;
  if (last && id && last.ids.includes(id)) location.assign(`${last.address}#paper-${id}`);
}

const KEYS: Record<string, () => void> = {
  j: () => move(1),
  k: () => move(-1),
  l: () => judge("like"),
  d: () => judge("dislike"),
  x: tick,
  u: back,
  "/": () => {
    const field = document.querySelector<HTMLInputElement>("#q");
    field?.focus();
    field?.select();
  },
  "?": () => dialog?.showModal(),
};

function types(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || target.matches("input, textarea, select"))
  );
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey)
    return;
  if (types(event.target) || dialog?.open) return;
  // Without the other keys, the one that explains them stays.
  if (event.key !== "?" && kept<boolean>(lasting, OFF)) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// Escape leaves the search for the list.
document.querySelector("#q")?.addEventListener("keydown", (event) => {
  const key = event as KeyboardEvent;
  if (key.key === "Escape") (key.target as HTMLElement).blur();
});

for (const button of document.querySelectorAll("[data-keys]"))
  button.addEventListener("click", () => dialog?.showModal());

const on = document.querySelector<HTMLInputElement>("#keys-on");
if (on) {
  on.checked = !kept<boolean>(lasting, OFF);
  on.addEventListener("change", () => keep(lasting, OFF, !on.checked));
}

/** Remember this list, for the pages of its papers. */
function remember(): void {
  if (single()) return;
  const ids = list().map((one) => one.dataset.paper ?? "");
  if (ids.length) keep(session, LIST, { address: location.pathname + location.search, ids });
}

document.addEventListener("htmx:after:swap", remember);
remember();

document.documentElement.classList.add("scripted");
