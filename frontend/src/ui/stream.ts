// The live stream: follows our accounts, hands changes to the page once a frame, tells the server when they are painted.
import { io, type Socket } from "socket.io-client";
import { ServerClock } from "../core/clock.ts";
import { Cursors } from "../core/cursors.ts";
import type {
  FeedStatus,
  OrderChecking,
  OrderUpdate,
  Painted,
  Place,
  PositionUpdate,
  Snapshot,
  TradeUpdate,
} from "../core/wire.ts";

export interface Listener {
  snapshot(snapshot: Snapshot): void;
  order(update: OrderUpdate): void;
  trade(update: TradeUpdate): void;
  position(update: PositionUpdate): void;
  feed(status: FeedStatus): void;
  checking(check: OrderChecking): void;
  /** Everything of this frame has been handed over: draw now. */
  draw(): void;
  /** What was drawn is on the screen since `at`, in the server's clock. */
  painted(at: number): void;
  connection(connected: boolean): void;
  outdated(): void;
}

type Ack = (painted: Painted) => void;
type Delivery = () => boolean;

const REFUSED_WAIT = 3000;
const CLOCK_EVERY = 30_000;
const CLOCK_FIRST = [0, 150, 400];

export class Stream {
  readonly clock = new ServerClock();
  readonly #socket: Socket;
  readonly #listener: Listener;
  readonly #cursors = new Cursors();
  readonly #version: string;
  #waiting: Delivery[] = [];
  #acks: Ack[] = [];
  #frame = 0;
  #resyncing = false;

  constructor(listener: Listener, version: string) {
    this.#listener = listener;
    this.#version = version;
    this.#socket = io({
      transports: ["websocket", "polling"],
      tryAllTransports: true, // some proxies let no WebSocket through
      reconnectionDelay: 300,
      reconnectionDelayMax: 4000,
      randomizationFactor: 0.5,
      autoConnect: false,
    });
    this.#listen();
  }

  start(): void {
    this.#socket.connect();
    document.addEventListener("visibilitychange", () => this.#flush());
    setInterval(() => this.#measure(), CLOCK_EVERY);
  }

  /** Take a snapshot that came by another way; the stream goes on from where it stands. */
  adopt(snapshot: Snapshot): void {
    this.#restart(snapshot);
    this.#listener.draw();
  }

  #listen(): void {
    const socket = this.#socket;
    socket.on("connect", () => {
      this.#resyncing = false;
      this.clock.renew();
      for (const wait of CLOCK_FIRST) setTimeout(() => this.#measure(), wait);
      this.#follow();
      this.#listener.connection(true);
    });
    socket.on("disconnect", (reason) => {
      this.#acks = [];
      this.#listener.connection(false);
      if (reason === "io server disconnect") setTimeout(() => socket.connect(), 1000);
    });
    socket.on("connect_error", (error) => {
      this.#listener.connection(false);
      if (error.message === "login") location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
      else if (!socket.active) setTimeout(() => socket.connect(), REFUSED_WAIT); // the library gives up when refused
    });
    socket.on("snapshot", (snapshot: Snapshot, ack: Ack) => this.#take(ack, () => this.#restart(snapshot)));
    this.#on<OrderUpdate>("order_update", (update) => this.#listener.order(update));
    this.#on<TradeUpdate>("trade_update", (update) => this.#listener.trade(update));
    this.#on<PositionUpdate>("position_update", (update) => this.#listener.position(update));
    socket.on("order_checking", (check: OrderChecking, ack: Ack) =>
      this.#take(ack, () => {
        this.#listener.checking(check);
        return true;
      }),
    );
    socket.on("feed_status", (status: FeedStatus, ack: Ack) =>
      this.#take(ack, () => {
        this.#listener.feed(status);
        return true;
      }),
    );
  }

  #on<T extends Place>(event: string, apply: (update: T) => void): void {
    this.#socket.on(event, (update: T, ack: Ack) => this.#take(ack, () => this.#advance(update, apply)));
  }

  #restart(snapshot: Snapshot): boolean {
    this.#cursors.reset(snapshot.account, snapshot);
    this.#resyncing = false;
    this.#listener.snapshot(snapshot);
    return true;
  }

  #advance<T extends Place>(update: T, apply: (update: T) => void): boolean {
    const verdict = this.#cursors.take(update);
    if (verdict === "apply") apply(update);
    if (verdict === "gap") this.#resync();
    return verdict === "apply";
  }

  #resync(): void {
    if (this.#resyncing) return;
    this.#resyncing = true;
    this.#follow();
  }

  #follow(): void {
    this.#socket.emit("follow", { cursors: this.#cursors.all() }, (answer: { version?: string }) => {
      this.#resyncing = false;
      if (answer.version !== undefined && answer.version !== this.#version) this.#listener.outdated();
    });
  }

  #measure(): void {
    const sent = Date.now();
    this.#socket.volatile.emit("clock", { t0: sent }, (answer: { t1: number }) =>
      this.clock.sample(sent, answer.t1, Date.now()),
    );
  }

  /** Keep a delivery for the next frame; a hidden tab has no frames, so it takes it at once. */
  #take(ack: Ack, apply: Delivery): void {
    this.#waiting.push(apply);
    this.#acks.push(ack);
    if (document.hidden) this.#flush();
    else if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#flush());
  }

  #flush(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#waiting.length === 0) return;
    const [waiting, acks] = [this.#waiting, this.#acks];
    this.#waiting = [];
    this.#acks = [];
    let changed = false;
    for (const apply of waiting) changed = apply() || changed;
    if (changed) this.#listener.draw();
    if (document.hidden) this.#tell(acks, true);
    else afterPaint(() => this.#tell(acks, false));
  }

  #tell(acks: readonly Ack[], hidden: boolean): void {
    const painted = this.clock.at(Date.now());
    for (const ack of acks) ack({ painted, hidden });
    if (!hidden) this.#listener.painted(painted);
  }
}

/** Run once the frame being drawn has been handed to the screen: a message posted from a frame comes after it. */
function afterPaint(then: () => void): void {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => {
    channel.port1.close();
    then();
  };
  channel.port2.postMessage(null);
}
