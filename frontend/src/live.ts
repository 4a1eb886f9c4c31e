// <etude-live topic="runs"><div id="runs">…</div></etude-live>: a part of the page that is fetched
// again, and replaced, whenever the topic moves: from this page's address, or from that in `src`.
// Without JavaScript it is what the server wrote. `at` is the topic's position when it was written,
// so that nothing that happened since is missed; a part with `data-final` is replaced no more.

import { follow } from "./events";

class Live extends HTMLElement {
  #end: (() => void) | null = null;

  connectedCallback(): void {
    const topic = this.getAttribute("topic");
    if (topic) this.#end = follow(topic, this.getAttribute("at"), { step: () => void this.#refresh() });
  }

  disconnectedCallback(): void {
    this.#end?.();
    this.#end = null;
  }

  async #refresh(): Promise<void> {
    const part = this.firstElementChild;
    if (!part?.id) return;
    try {
      const answer = await fetch(this.getAttribute("src") ?? location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(part.id);
      if (!fresh) return;
      if (fresh.hasAttribute("data-final")) this.disconnectedCallback();
      if (fresh.innerHTML !== part.innerHTML) this.replaceChildren(fresh);
    } catch {
      // The server is away: what is shown stays, and the next event tries again.
    }
  }
}

customElements.define("etude-live", Live);
