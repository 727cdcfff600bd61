// For pages in React: a book that is fetched again when an order changes, and how fresh it is.
import { useEffect, useRef, useState } from "react";
import { coalesce } from "./coalesce.ts";
import { Following } from "./follow.ts";
import { type Summary, summary } from "./summary.ts";

const shared = new Following();

/**
 * Call `refetch` whenever the book may have changed, one at a time, and return how fresh it is.
 *
 *     const { words, detail } = useOrderFeed(() => queryClient.invalidateQueries({ queryKey: ["orderbook"] }));
 */
export function useOrderFeed(refetch: () => unknown): Summary {
  const newest = useRef(refetch);
  const [fresh, setFresh] = useState<Summary>(() => summary([], false));
  useEffect(() => {
    newest.current = refetch;
  });
  useEffect(() => shared.add({ onChange: coalesce(() => newest.current()), onFreshness: setFresh }), []);
  return fresh;
}
