/** Listeners by event name, and every event in turn for whoever iterates. */
export class Emitter<Events extends object> {
  /** @internal */
  private listeners = new Map<keyof Events, Set<(event: any) => void>>();
  /** @internal */
  private readers = new Set<(event: any) => void>();
  private isOver = false;

  /** Calls `listener` for each event of this name, until the function that it returns is called. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void {
    const known = this.listeners.get(name) ?? new Set();
    this.listeners.set(name, known.add(listener));
    return () => known.delete(listener);
  }

  /** Resolves with the next event of this name. */
  once<Name extends keyof Events>(name: Name): Promise<Events[Name]> {
    return new Promise((resolve) => {
      const off = this.on(name, (event) => {
        off();
        resolve(event);
      });
    });
  }

  /** Every event from now on, each with its name as `type`, until the session is closed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<{ [Name in keyof Events]: { type: Name } & Events[Name] }[keyof Events]> {
    const waiting: any[] = [];
    let wake = () => {};
    const reader = (event: any) => {
      waiting.push(event);
      wake();
    };
    this.readers.add(reader);
    try {
      for (;;) {
        const event = waiting.shift();
        if (event === null || (!event && this.isOver)) return;
        if (event) yield event;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.readers.delete(reader);
    }
  }

  /** @internal There are no more events. */
  protected finish(): void {
    this.isOver = true;
    for (const reader of this.readers) reader(null);
  }

  /** @internal One listener's fault is not the next one's. */
  protected emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    for (const listener of [...(this.listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    for (const reader of this.readers) reader({ type: name, ...event });
  }
}
