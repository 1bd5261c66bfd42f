/** Dispatches events to listeners by name, and to async iterators in order. */
export class Emitter<Events extends object> {
  /** @internal */
  private listeners = new Map<keyof Events, Set<(event: any) => void>>();
  /** @internal */
  private readers = new Set<(event: any) => void>();
  /** @internal */
  protected isFinished = false;

  /** Calls `listener` for each event of this name, until the returned function is called. */
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

  /** Yields every event from now on, each with its name as `type`, until the session is closed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<{ [Name in keyof Events]: { type: Name } & Events[Name] }[keyof Events]> {
    const queue: any[] = [];
    let wake = () => {};
    const reader = (event: any) => {
      queue.push(event);
      wake();
    };
    this.readers.add(reader);
    try {
      for (;;) {
        const event = queue.shift();
        if (event === null || (!event && this.isFinished)) return;
        if (event) yield event;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.readers.delete(reader);
    }
  }

  /** @internal Ends all iterators. */
  protected finish(): void {
    this.isFinished = true;
    for (const reader of this.readers) reader(null);
  }

  /** @internal An exception in one listener is reported as uncaught and does not stop the others. */
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
