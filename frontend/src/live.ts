// <etude-live topic="runs"><div id="runs">…</div></etude-live>: a part of the page that is fetched
// again, and replaced, whenever the topic moves: from this page's address, or from that in `src`.
// Without JavaScript it is what the server wrote. `at` is the topic's position when it was written,
// so that nothing that happened since is missed; a part with `data-final` is replaced no more.

import { follow, together } from "./events";

class Live extends HTMLElement {
  #end: (() => void) | null = null;

  connectedCallback(): void {
    const topic = this.getAttribute("topic");
    if (topic) this.#end = follow(topic, this.getAttribute("at"), { step: () => this.#refresh() });
  }

  disconnectedCallback(): void {
    this.#end?.();
    this.#end = null;
  }

  /** Fetch the part again. While the server is away this fails, and is asked for again later. */
  async #refresh(): Promise<void> {
    const part = this.firstElementChild;
    if (!part?.id || !this.isConnected) return;
    const address = this.getAttribute("src") ?? location.href;
    const page = await together(address, () => fetchPage(address));
    const fresh = page?.getElementById(part.id);
    if (!fresh) return;
    if (fresh.hasAttribute("data-final")) this.disconnectedCallback();
    if (fresh.innerHTML === part.innerHTML) return;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const top = part.scrollTop;
    const atEnd = top > 0 && part.scrollHeight - part.clientHeight - top < 4;
    this.replaceChildren(fresh);
    // Whoever reads the end of a log reads on at its end; other places stay where they were.
    fresh.scrollTop = atEnd ? fresh.scrollHeight : top;
    if (focused) focusAgain(fresh, focused);
  }
}

/** Fetch a page; null if it is there no longer. Fails if the server does. */
async function fetchPage(address: string): Promise<Document | null> {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (answer.status >= 500) throw new Error(String(answer.status));
  return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}

/** Focus what stands where the replaced element stood: the same link or button, or the part. */
function focusAgain(part: Element, lost: Element): void {
  const same = (one: Element) =>
    one.textContent === lost.textContent &&
    ["id", "href", "name", "value"].every((name) => one.getAttribute(name) === lost.getAttribute(name));
  const found = lost.id === part.id ? part : [...part.getElementsByTagName(lost.tagName)].find(same);
  (found as HTMLElement | undefined)?.focus();
}

customElements.define("etude-live", Live);
