// Following topics of the server's stream of events; see src/etude/web/events.py.
//
// One connection serves all tabs: a shared worker's, or that of the tab that leads (Web Locks),
// which passes events on by a BroadcastChannel. Without either, each tab asks every two seconds.
// However an event comes, a page applies it only if it stands where the event begins; otherwise it
// asks the server for what it lacks. So nothing is applied twice, and nothing is left out.

export interface News {
  topic: string;
  from?: string;
  to?: string;
  data?: unknown;
  gone?: string;
  broken?: string;
}

export interface Follower {
  /** Called with each step, in order; one that fails is asked for again. */
  step(data: unknown): void | Promise<void>;
  /** Called when the topic no longer exists, or cannot be read, with the reason. */
  lost?(reason: string): void;
}

interface Followed {
  follower: Follower;
  at: string | null;
  busy: Promise<void>;
}

const POLL_MS = 2000;
const followed = new Map<string, Set<Followed>>();
let transport: ((topics: string[]) => void) | null = null;

/**
 * Follow a topic.
 * @param topic such as `runs` or `run/NAME`.
 * @param at where the page stands: "" is the beginning, null is now.
 * @returns a function that ends it.
 */
export function follow(topic: string, at: string | null, follower: Follower): () => void {
  const one: Followed = { follower, at, busy: Promise.resolve() };
  const all = followed.get(topic) ?? new Set();
  followed.set(topic, all.add(one));
  catchUp(topic, one);
  transport ??= choose();
  transport([...followed.keys()]);
  return () => {
    all.delete(one);
    if (all.size === 0) followed.delete(topic);
    transport?.([...followed.keys()]);
  };
}

function receive(news: News): void {
  for (const one of followed.get(news.topic) ?? []) {
    one.busy = one.busy.then(() => apply(news, one));
  }
}

async function apply(news: News, one: Followed): Promise<void> {
  const reason = news.gone ?? news.broken;
  if (reason !== undefined) one.follower.lost?.(reason);
  else if (one.at === news.from) await take(news, one);
  else if (one.at !== news.to) await askAfter(news.topic, one);
}

/** Take a step, and stand behind it; a step that failed is still to be taken. */
async function take(news: News, one: Followed): Promise<void> {
  try {
    await one.follower.step(news.data);
    one.at = news.to ?? one.at;
  } catch {
    // The next event, or the connection's return, asks for it again.
  }
}

function catchUp(topic: string, one: Followed): void {
  one.busy = one.busy.then(() => askAfter(topic, one));
}

interface Answer {
  events: News[];
  at: Record<string, string>;
}

async function fetchNews(address: string): Promise<Answer | null> {
  const answer = await fetch(address);
  return answer.ok ? ((await answer.json()) as Answer) : null;
}

const asked = new Map<string, Promise<unknown>>();

/** Ask once for what several parts of the page ask for at the same moment, and never later. */
export function together<T>(address: string, ask: () => Promise<T>): Promise<T> {
  const answer = (asked.get(address) as Promise<T> | undefined) ?? ask();
  asked.set(address, answer);
  queueMicrotask(() => asked.delete(address));
  return answer;
}

/** Ask the server what happened after the place where a follower stands. */
async function askAfter(topic: string, one: Followed): Promise<void> {
  const since = one.at === null ? topic : `${topic}@${one.at}`;
  try {
    const address = `/events/after?since=${encodeURIComponent(since)}`;
    const answer = await together(address, () => fetchNews(address));
    if (!answer) return;
    const { events, at } = answer;
    for (const news of events) {
      if (news.gone !== undefined) one.follower.lost?.(news.gone);
      else {
        await take(news, one);
        if (one.at !== news.to) return;
      }
    }
    one.at = at[topic] ?? one.at;
  } catch {
    // The server is away; the next event, or the connection's return, asks again.
  }
}

function again(): void {
  for (const [topic, all] of followed) for (const one of all) catchUp(topic, one);
}

function choose(): (topics: string[]) => void {
  // A page that was hidden, or frozen with its machine, may have missed what was said meanwhile.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) again();
  });
  const address = document.querySelector<HTMLMetaElement>('meta[name="etude-events"]')?.content;
  if (address && "SharedWorker" in window) {
    const { port } = new SharedWorker(address, { name: "etude-events", type: "module" });
    port.onmessage = ({ data }: MessageEvent<News | "again">) =>
      data === "again" ? again() : receive(data);
    const tell = (topics: string[]) => port.postMessage(topics);
    whileShown(tell);
    return tell;
  }
  if ("BroadcastChannel" in window && "locks" in navigator) return lead();
  let idle = true;
  setInterval(() => {
    if (document.hidden || !idle) return;
    idle = false;
    again();
    const all = [...followed.values()].flatMap((some) => [...some].map((one) => one.busy));
    void Promise.all(all).then(() => (idle = true));
  }, POLL_MS);
  return () => undefined;
}

/** Follow nothing once the page is left, and everything again if it is shown again from memory. */
function whileShown(tell: (topics: string[]) => void): void {
  addEventListener("pagehide", () => tell([]));
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    tell([...followed.keys()]);
    again();
  });
}

/** Follow by a connection of the tab that holds the lock. */
function lead(): (topics: string[]) => void {
  const channel = new BroadcastChannel("etude-events");
  const wanted = new Map<string, string[]>();
  const me = Math.random().toString(36).slice(2);
  let stream: Stream | null = null;
  const say = (news: News | "again") => {
    channel.postMessage({ news });
    news === "again" ? again() : receive(news);
  };
  const want = (tab: string, topics: string[]) => {
    if (topics.length) wanted.set(tab, topics);
    else wanted.delete(tab);
    stream?.follow([...new Set([...wanted.values()].flat())]);
  };
  channel.onmessage = ({ data }) => {
    if (data.news === "again") again();
    else if (data.news) receive(data.news);
    else if (data.topics) want(data.tab, data.topics);
    else if (data.leader) channel.postMessage({ tab: me, topics: wanted.get(me) ?? [] });
  };
  void navigator.locks.request("etude-events", () => {
    stream = new Stream(say);
    channel.postMessage({ leader: true });
    want(me, wanted.get(me) ?? []);
    return new Promise(() => undefined);
  });
  const tell = (topics: string[]) => {
    want(me, topics);
    channel.postMessage({ tab: me, topics });
  };
  whileShown(tell);
  return tell;
}

/** One connection, opened again when the topics change or after it was lost. */
export class Stream {
  #source: EventSource | null = null;
  #topics = "";

  constructor(private readonly say: (news: News | "again") => void) {}

  follow(topics: string[]): void {
    const wanted = [...topics].sort().join(",");
    if (wanted === this.#topics) return;
    this.#topics = wanted;
    this.#source?.close();
    this.#source = null;
    if (wanted) this.#open();
  }

  #open(): void {
    const source = new EventSource(`/events?since=${encodeURIComponent(this.#topics)}`);
    this.#source = source;
    // What happened while there was no connection is asked for by each page.
    source.onopen = () => this.say("again");
    source.onmessage = ({ data }) => this.say(JSON.parse(data) as News);
    source.onerror = () => {
      // A browser gives up on an answer that is no stream: a server that is starting, say.
      if (source.readyState !== EventSource.CLOSED || this.#source !== source) return;
      setTimeout(() => {
        if (this.#source === source) this.#open();
      }, 3000);
    };
  }
}
