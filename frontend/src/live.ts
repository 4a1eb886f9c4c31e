// <etude-live topic="runs"><div id="runs">…</div></etude-live>: a part of the page that is fetched
// again whenever the topic moves, from this page's address, or from that in `src`; only what differs
// is changed. Without JavaScript it is what the server wrote. `at` is the topic's position when it
// was written, so that nothing that happened since is missed; a part with `data-final` stays.

import { follow, together } from "./events";
import { morph } from "./morph";

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
    await released();
    if (!this.isConnected || this.firstElementChild !== part) return;
    if (fresh.hasAttribute("data-final")) this.disconnectedCallback();
    if (fresh.innerHTML === part.innerHTML) return;
    const focused = document.activeElement;
    const inside = part.contains(focused);
    const top = part.scrollTop;
    const atEnd = top > 0 && part.scrollHeight - part.clientHeight - top < 4;
    const same = fresh.localName === part.localName;
    if (same) morph(part, fresh);
    else this.replaceChildren(fresh);
    const now = same ? part : fresh;
    // Whoever reads the end of a log reads on at its end; other places stay where they were.
    if (atEnd || !same) now.scrollTop = atEnd ? now.scrollHeight : top;
    if (inside && document.activeElement !== focused) focusAgain(now, focused as HTMLElement);
  }
}

let pressed: Promise<void> | null = null;

/** Wait while a button of the pointer is down: what it was pressed on must be there, and in its
 * place, when it is let go, or there is no click. */
function released(): Promise<void> {
  return pressed ?? Promise.resolve();
}

addEventListener(
  "pointerdown",
  () => {
    pressed ??= new Promise((resolve) => {
      const over = new AbortController();
      const end = (event: Event) => {
        if (event.type === "blur" && event.target !== window) return; // another element's
        // The release of a scrollbar, or over a menu, is told by the next move alone.
        if (event.type === "pointermove" && (event as PointerEvent).buttons) return;
        over.abort();
        pressed = null;
        setTimeout(resolve); // after the click, which follows at once
      };
      for (const name of ["pointerup", "pointercancel", "pointermove", "dragend", "blur"])
        addEventListener(name, end, { capture: true, signal: over.signal });
    });
  },
  { capture: true },
);

/** Fetch a page; null if it is there no longer. Fails if the server does. */
async function fetchPage(address: string): Promise<Document | null> {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (answer.status >= 500) throw new Error(String(answer.status));
  return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}

/** Focus an element that was moved; if it is gone, the part, so that Tab goes on from here. */
function focusAgain(part: Element, lost: HTMLElement): void {
  const heir = lost.isConnected ? lost : (part as HTMLElement);
  if (heir === part && !part.hasAttribute("tabindex")) part.setAttribute("tabindex", "-1");
  heir.focus({ preventScroll: true });
}

customElements.define("etude-live", Live);
