// <etude-answer slug="…"><form>…</form></etude-answer>: saves the code while one types, and sends
// the form's buttons without leaving the page. What the server answers is the whole page; the parts
// that may have changed are taken from it. Whatever is sent waits for what was sent before, so that
// each request has the revision that the last one made.

import { Editor } from "./editor";

const SAVE_MS = 700;
const PARTS = ["conflict", "verdict", "explanation", "hints", "judge"];

class Answer extends HTMLElement {
  #timer: number | undefined;
  #busy: Promise<void> = Promise.resolve();
  #saved = "";

  connectedCallback(): void {
    this.#saved = this.#code;
    this.#form.addEventListener("input", (event) => {
      if ((event.target as HTMLElement).id === "source") this.#changed();
    });
    this.#form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || (event.target as HTMLElement).id !== "question") return;
      event.preventDefault();
      this.querySelector<HTMLButtonElement>('button[formaction$="/explain"]')?.click();
    });
    this.#form.addEventListener("submit", (event) => {
      const button = event.submitter as HTMLButtonElement | null;
      // Which code to go on with is chosen on a new page, which begins with it.
      if (!button || button.formAction.includes("/choose")) return;
      event.preventDefault();
      this.#then(() => this.#send(button));
    });
    addEventListener("pagehide", this.#leave);
    document.addEventListener("visibilitychange", this.#look);
  }

  disconnectedCallback(): void {
    removeEventListener("pagehide", this.#leave);
    document.removeEventListener("visibilitychange", this.#look);
  }

  get #form(): HTMLFormElement {
    return this.querySelector("form") as HTMLFormElement;
  }

  get #code(): string {
    return this.querySelector("textarea")?.value ?? "";
  }

  get #conflict(): boolean {
    return (this.querySelector("#conflict")?.childElementCount ?? 0) > 0;
  }

  get #address(): string {
    return `/practise/${this.getAttribute("slug")}/draft`;
  }

  #field(name: string): HTMLInputElement {
    return this.#form.elements.namedItem(name) as HTMLInputElement;
  }

  #say(words: string): void {
    const place = this.querySelector(".saved");
    if (place && place.textContent !== words) place.textContent = words;
  }

  #then(task: () => Promise<void>): void {
    this.#busy = this.#busy.then(task, task);
  }

  #changed(): void {
    this.#say("");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#then(() => this.#save()), SAVE_MS);
  }

  #draft(): URLSearchParams {
    const body = new URLSearchParams();
    for (const name of ["csrf", "revision", "tab"]) body.set(name, this.#field(name).value);
    body.set("source", this.#code);
    return body;
  }

  async #save(): Promise<void> {
    const code = this.#code;
    if (code === this.#saved) return;
    try {
      const answer = await fetch(this.#address, {
        method: "POST",
        body: this.#draft(),
        headers: { Accept: "application/json" },
      });
      if (answer.status >= 400 && answer.status < 500) {
        // Trying again would not help: the session has ended, say, or the problem is gone.
        const { detail } = (await answer.json()) as { detail: string };
        this.#say(`Not saved: ${detail}`);
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const { revision, agrees } = (await answer.json()) as { revision: number; agrees: boolean };
      this.#saved = code;
      if (agrees) {
        this.#field("revision").value = String(revision);
        this.#say("Saved");
      } else {
        this.#say("Saved beside the code of another tab");
        const own = `${location.pathname}?tab=${this.#field("tab").value}`;
        await this.#take(await fetch(own), ["conflict"]);
      }
    } catch {
      this.#say("Not saved: Etude's server does not answer. It is tried again.");
      this.#timer = setTimeout(() => this.#then(() => this.#save()), 3000);
    }
  }

  async #send(button: HTMLButtonElement): Promise<void> {
    clearTimeout(this.#timer);
    const body = new URLSearchParams(
      new FormData(this.#form, button) as unknown as Record<string, string>,
    );
    const code = this.#code;
    button.disabled = true;
    try {
      const answer = await fetch(button.formAction, { method: "POST", body });
      await this.#take(answer, PARTS);
      if (!answer.ok) return;
      this.#saved = code;
      this.#say(this.#conflict ? "Saved beside the code of another tab" : "Saved");
      const address = new URL(answer.url);
      address.searchParams.delete("tab");
      history.replaceState(null, "", address.pathname + address.search);
      if (button.dataset.key) this.querySelector<HTMLElement>("#verdict")?.focus();
      else if (!button.isConnected) this.#nearest(button.formAction)?.focus();
    } catch {
      this.#say("Not sent: Etude's server does not answer. Your code is still here.");
    } finally {
      button.disabled = false;
    }
  }

  /** Return what to focus when the pressed button was replaced: its successor, or its part. */
  #nearest(action: string): HTMLElement | null {
    const name = new URL(action).pathname.split("/").pop() ?? "";
    return (
      this.querySelector<HTMLElement>(`button[formaction*="/${name}"]`) ??
      this.querySelector<HTMLElement>("#verdict")
    );
  }

  /** Take parts of the page, and the draft's revision, from an answer. */
  async #take(answer: Response, parts: string[]): Promise<void> {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok) {
      this.#say(page.querySelector(".lede")?.textContent ?? `Error ${answer.status}`);
      return;
    }
    for (const id of parts) {
      const fresh = page.getElementById(id);
      if (fresh) this.querySelector(`#${id}`)?.replaceWith(document.adoptNode(fresh));
    }
    const of = page.querySelector<HTMLInputElement>("#of");
    if (of && parts.length > 1) this.#field("of").value = of.value;
    const now = page.querySelector<HTMLInputElement>('input[name="revision"]');
    const agrees = page.querySelector<HTMLTextAreaElement>("#source")?.value === this.#code;
    if (now && agrees) this.#field("revision").value = now.value;
  }

  /** The page is left: what was not saved yet is sent with the last breath. */
  #leave = (): void => {
    if (this.#code === this.#saved) return;
    void fetch(this.#address, {
      method: "POST",
      body: this.#draft(),
      headers: { Accept: "application/json" },
      keepalive: true,
    });
    this.#saved = this.#code;
  };

  /** The page is looked at again: take up what another tab has saved, if nothing is lost by it. */
  #look = (): void => {
    if (document.hidden) {
      this.#then(() => this.#save());
      return;
    }
    this.#then(async () => {
      if (this.#code !== this.#saved) return;
      const answer = await fetch(this.#address).catch(() => null);
      if (!answer?.ok) return;
      const { revision, source } = (await answer.json()) as { revision: number; source: string };
      if (revision <= Number(this.#field("revision").value) || this.#code !== this.#saved) return;
      if (this.#conflict) return;
      const editor = this.querySelector("etude-editor");
      if (!(editor instanceof Editor)) return;
      this.#saved = source;
      this.#field("revision").value = String(revision);
      editor.value = source;
      clearTimeout(this.#timer);
      this.#say("Taken from another tab");
    });
  };
}

customElements.define("etude-answer", Answer);
