// The order book of the host in React, with orderwire's hook in one line.
import { createElement as h, useCallback, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { useOrderFeed } from "../../frontend/src/host/react.ts";

interface Order {
  orderid: string;
  symbol: string;
  action: string;
  quantity: number;
  filled_quantity: number;
  order_status: string;
}

function OrderBook() {
  const [orders, setOrders] = useState<Order[]>([]);
  const refetch = useCallback(async () => {
    const reply = await fetch("/books/orders");
    setOrders((await reply.json()).orders);
  }, []);
  useEffect(() => void refetch(), [refetch]);
  const { freshness, words, detail } = useOrderFeed(refetch); // the line

  return h(
    "div",
    {},
    h("h1", {}, "Order book ", h("span", { className: "freshness", "data-freshness": freshness, title: detail }, words)),
    detail === "" ? null : h("p", { "data-orderwire-detail": "" }, detail),
    h(
      "table",
      {},
      h("tbody", {}, orders.map((order) =>
        h("tr", { key: order.orderid, "data-order": order.orderid },
          h("td", {}, order.orderid), h("td", {}, order.symbol), h("td", {}, `${order.filled_quantity}/${order.quantity}`),
          h("td", { className: "status" }, order.order_status)))),
    ),
  );
}

const root = document.getElementById("root");
if (root !== null) createRoot(root).render(h(OrderBook));
