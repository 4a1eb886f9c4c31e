// Making a part of a page equal to a newer one, with as few changes as there are differences.
//
// What has not changed stays the same element: it keeps the focus, what was typed or ticked in it,
// the text that is selected, and a click whose button is down. So a person can work in a part that
// is written anew twice a second. A control that would do something else now is another one: a
// press that began on the old one does not act on the new.

/** What an element is, and what it acts on: its address, its name, or the words on it. */
function own(element: Element): string {
  const of = (name: string) => element.getAttribute(name) ?? "";
  if (element.id) return `#${element.id}`;
  switch (element.localName) {
    case "etude-live":
      return of("topic");
    case "a":
      return of("href");
    case "button":
      return `${of("name")}=${of("value")} ${of("formaction")} ${element.textContent?.trim()}`;
    case "input":
      return `${of("type")} ${of("name")} ${/^(checkbox|radio)$/.test(of("type")) ? of("value") : ""}`;
    case "select":
    case "textarea":
      return of("name");
    case "option":
      return of("value");
    case "form": {
      const hidden = element.querySelectorAll('input[type="hidden"]:not([name="csrf"])');
      const said = [...hidden].map((one) => `${one.getAttribute("name")}=${one.getAttribute("value")}`);
      return [of("action"), ...said].join(" ");
    }
  }
  return "";
}

const ACTS = "etude-live, [id], a[href], form";

/** Children with the same key are one: of rows and lists, by what can be done in them. */
function key(element: Element): string {
  let what = own(element);
  if (!what && /^(tr|li|section|fieldset|details)$/.test(element.localName)) {
    const inner = element.querySelector(ACTS);
    what = inner ? own(inner) : (element.querySelector("th, summary, h2, h3")?.textContent ?? "");
  }
  return `${element.localName} ${what}`;
}

/** For each child of `to`, the child of `from` that becomes it. */
function pairs(from: Element, to: Element): Map<Node, Node> {
  const found = new Map<Node, Node>();
  const free = new Map<string, Element[]>();
  for (const child of from.children) {
    const which = key(child);
    free.set(which, [...(free.get(which) ?? []), child]);
  }
  for (const child of to.children) {
    const same = free.get(key(child))?.shift();
    if (same) found.set(child, same);
  }
  // A text belongs to what stands before it.
  for (const child of to.childNodes) {
    if (child.nodeType !== Node.TEXT_NODE) continue;
    const before = child.previousSibling && found.get(child.previousSibling);
    if (child.previousSibling && !before) continue;
    const text = before ? before.nextSibling : from.firstChild;
    if (text?.nodeType === Node.TEXT_NODE) found.set(child, text);
  }
  return found;
}

/** Change only the stretch that differs: what is selected before and after it stays selected. */
function rewrite(text: Text, wanted: string): void {
  const now = text.data;
  if (now === wanted) return;
  const most = Math.min(now.length, wanted.length);
  let start = 0;
  while (start < most && now[start] === wanted[start]) start += 1;
  let end = 0;
  while (end < most - start && now[now.length - 1 - end] === wanted[wanted.length - 1 - end]) end += 1;
  text.replaceData(start, now.length - start - end, wanted.slice(start, wanted.length - end));
}

/** Attributes as the server wrote them; what a reader opened stays open, and can keep the focus. */
function attributes(from: Element, to: Element): void {
  const theirs = (name: string) =>
    (name === "open" && from.localName === "details") ||
    (name === "tabindex" && from === document.activeElement);
  for (const { name } of [...from.attributes])
    if (!to.hasAttribute(name) && !theirs(name)) from.removeAttribute(name);
  for (const { name, value } of to.attributes)
    if (from.getAttribute(name) !== value && !theirs(name)) from.setAttribute(name, value);
}

interface Movable {
  moveBefore?(node: Node, before: Node | null): void;
}

/** Make `from` equal to `to`, whose nodes it may take. */
export function morph(from: Element, to: Element): void {
  attributes(from, to);
  const found = pairs(from, to);
  const kept = new Set(found.values());
  for (const child of [...from.childNodes]) if (!kept.has(child)) child.remove();
  let place = from.firstChild;
  for (const child of [...to.childNodes]) {
    const mine = found.get(child);
    if (mine) {
      if (mine instanceof Text) rewrite(mine, (child as Text).data);
      else morph(mine as Element, child as Element);
    }
    const node = mine ?? child;
    if (node === place) place = place.nextSibling;
    else if (mine && (from as Movable).moveBefore) (from as Movable).moveBefore?.(node, place);
    else from.insertBefore(node, place);
  }
}
