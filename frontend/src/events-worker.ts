// The shared worker: one connection for all tabs of this browser.

import { type News, Stream } from "./events";

const tabs = new Map<MessagePort, string[]>();
const stream = new Stream((news: News | "again") => {
  for (const port of tabs.keys()) port.postMessage(news);
});

(self as unknown as { onconnect: (event: MessageEvent) => void }).onconnect = ({ ports }) => {
  const port = ports[0];
  if (!port) return;
  const want = (topics: string[]) => {
    if (topics.length) tabs.set(port, topics);
    else tabs.delete(port);
    stream.follow([...new Set([...tabs.values()].flat())]);
  };
  port.onmessage = ({ data }: MessageEvent<string[]>) => want(data);
  // A tab that crashed says nothing; browsers that can tell do.
  port.addEventListener("close", () => want([]));
};
